"""Calls captured in CUDA graphs, and what a graph consists of: for the tests and the benchmarks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch


def capture(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Capture a call, after one to warm up; the graph, and the results that each replay writes anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        results = call()
    graph.instantiate()
    return graph, results


NODES = {0: "kernel", 1: "memcpy", 2: "memset", 3: "host", 4: "graph", 5: "empty", 10: "alloc", 11: "free"}


def nodes(graph: torch.cuda.CUDAGraph) -> list[str]:
    """The kinds of a captured graph's nodes, asked of the driver, which every version of CUDA has."""
    driver = ctypes.CDLL("libcuda.so.1")
    handle, count = ctypes.c_void_p(graph.raw_cuda_graph()), ctypes.c_size_t()
    assert driver.cuGraphGetNodes(handle, None, ctypes.byref(count)) == 0
    found = (ctypes.c_void_p * count.value)()
    assert driver.cuGraphGetNodes(handle, found, ctypes.byref(count)) == 0
    kinds = []
    for node in found:
        kind = ctypes.c_int()
        assert driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) == 0
        kinds.append(NODES.get(kind.value, str(kind.value)))
    return kinds
