// The wire for cgsv_ext/wire.py, which has checked the arguments but for what only their data can say:
// numpy arrays and bytes in and out. Host work without a device's twin, so functions of the Python module
// and no ops.
#include "../core/wire.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "threads.h"
#include "wire_module.h"

namespace py = pybind11;

namespace cgsv::binding {
namespace {

using wire::header_bytes;

DType dtype_of(const py::array& u) { return u.itemsize() == 8 ? DType::f64 : DType::f32; }

// Memory for a message, not yet written.
py::bytes message_of(int64_t body_bytes) {
  PyObject* const made = PyBytes_FromStringAndSize(nullptr, header_bytes + body_bytes);
  if (!made) throw py::error_already_set();
  auto message = py::reinterpret_steal<py::bytes>(made);
  cpu::expect_writes(PyBytes_AS_STRING(message.ptr()), header_bytes + body_bytes);
  return message;
}

std::byte* data_of(const py::bytes& message) {
  return reinterpret_cast<std::byte*>(PyBytes_AS_STRING(message.ptr()));
}

void copy(const std::byte* from, int64_t bytes, std::byte* to, const Threads& threads) {
  struct Copy {
    const std::byte* from;
    std::byte* to;
  } work{from, to};
  threads.parallel_for(
      0, bytes, 1 << 20,
      [](int64_t begin, int64_t end, void* context) {
        const Copy& c = *static_cast<const Copy*>(context);
        std::memcpy(c.to + begin, c.from + begin, size_t(end - begin));
      },
      &work);
}

// f() without the GIL; what it finds fault with is a ValueError of the function named.
template <class F>
auto released(const char* op, const F& f) {
  try {
    const py::gil_scoped_release release;
    return f();
  } catch (const std::invalid_argument& error) {
    throw py::value_error(std::string(op) + "(): " + error.what());
  }
}

py::list messages_of(const char* op, const Aggregate& u, int64_t n, const Selection* selection,
                     const Segments& segments, bool bf16, int64_t round,
                     const std::vector<int64_t>& since) {
  const Threads threads = torch_threads();
  const DType values = bf16 ? DType::bf16 : DType::f32;
  wire::Encoder encoder =
      released(op, [&] { return wire::Encoder(u, n, selection, segments, values, threads); });

  // Agents who get the same share one object. The stream is written where its longest message will be.
  std::map<std::pair<int64_t, int64_t>, py::bytes> made;
  py::list messages;
  for (int64_t i = 0; i < n; ++i) {
    const auto found = made.try_emplace({encoder.blocks_of(i), since[i]});
    if (found.second) {
      found.first->second = message_of(encoder.bytes_of(encoder.blocks_of(i)));
    }
    messages.append(found.first->second);
  }
  std::vector<std::pair<wire::Header, std::byte*>> to_write;
  for (const auto& [key, message] : made) {
    wire::Header header;
    header.values = values;
    header.blocks = key.first;
    header.size = u.d;
    header.round = round;
    header.since = key.second;
    header.body_bytes = PyBytes_GET_SIZE(message.ptr()) - header_bytes;
    to_write.emplace_back(header, data_of(message));
  }
  std::byte* const stream = to_write.back().second + header_bytes;
  released(op, [&] {
    encoder.write(stream, threads);
    for (const auto& [header, message] : to_write) {
      if (message + header_bytes != stream) {
        copy(stream, header.body_bytes, message + header_bytes, threads);
      }
      wire::write_header(header, encoder.crc_of(header.blocks), message);
    }
  });
  return messages;
}

// u: (D,) float32 or float64. All of it as one message.
py::bytes encode(const py::array& u, bool bf16, int64_t round, int64_t since) {
  const Aggregate aggregate{u.data(), u.size(), dtype_of(u)};
  const Segments none{nullptr, 0};
  return messages_of("encode", aggregate, 1, nullptr, none, bf16, round, {since})[0];
}

// u: (D,); magnitude, last_index: (N, S), the former in u's dtype.
py::list encode_all(const py::array& u, const py::array& magnitude,
                    const py::array_t<int64_t, py::array::c_style>& last_index,
                    const std::vector<int64_t>& sizes, bool bf16, int64_t round,
                    const std::vector<int64_t>& since) {
  const Aggregate aggregate{u.data(), u.size(), dtype_of(u)};
  const Selection selection{magnitude.data(), last_index.data()};
  const Segments segments{sizes.data(), int64_t(sizes.size())};
  return messages_of("encode_all", aggregate, last_index.shape(0), &selection, segments, bf16,
                     round, since);
}

// data: contiguous bytes. size −1: any. Returns the elements, float32, round and since.
py::tuple decode(const py::buffer& data, int64_t size, int64_t limit) {
  const py::buffer_info message = data.request();
  const Threads threads = torch_threads();
  const wire::Decoder decoder = released("decode", [&] {
    return wire::Decoder(static_cast<const std::byte*>(message.ptr), message.size, size, limit,
                         threads);
  });
  const wire::Header& header = decoder.header();
  py::array_t<float> elements(header.size);
  float* const out = elements.mutable_data();
  released("decode", [&] {
    cpu::expect_writes(out, header.size * 4);
    decoder.read(out, threads);
  });
  return py::make_tuple(elements, header.round, header.since);
}

}  // namespace

void bind_wire(py::module_& m) {
  m.def("encode", &encode);
  m.def("encode_all", &encode_all);
  m.def("decode", &decode);
  m.attr("most_elements") = wire::most_elements;
}

}  // namespace cgsv::binding
