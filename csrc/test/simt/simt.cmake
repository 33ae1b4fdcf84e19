# add_simt_library(<name> <flavour> <source.cu>...): a shared library of CUDA sources for the CPU.
#
# flavour   plain, sanitize (ASan and UBSan, also in what links the library), race.
# <name>    is linked by host tests, which so find <cuda_runtime_api.h>, "simt.h" and csrc/.
# <name>_kernels    compiles the sources: definitions and include directories of theirs go there.
#
# What the sources define is visible outside, whatever the project's flags: -fvisibility comes last.
# What they need of other libraries, add by target_link_libraries(<name> PRIVATE ...).

set(SIMT_DIR "${CMAKE_CURRENT_LIST_DIR}")
set(SIMT_FLAGS -g1 -ffp-contract=off -fvisibility=default -Wall -Wextra -Werror)

# The shim itself, once a flavour.
function(add_simt_shim flavour)
  if(TARGET simt_shim_${flavour})
    return()
  endif()
  set(sources error.cpp fiber.cpp runtime.cpp schedule.cpp scheduler.cpp shared.cpp warp.cpp)
  if(flavour STREQUAL "race")
    list(APPEND sources race/hooks.cpp race/order.cpp race/shadow.cpp)
  endif()
  list(TRANSFORM sources PREPEND "${SIMT_DIR}/")
  add_library(simt_shim_${flavour} OBJECT ${sources})
  target_compile_options(simt_shim_${flavour} PRIVATE ${SIMT_FLAGS})
  if(flavour STREQUAL "sanitize")
    target_compile_options(simt_shim_sanitize PRIVATE ${SIMT_SANITIZE})
  else()
    target_compile_options(simt_shim_${flavour} PRIVATE -O2)
  endif()
  if(flavour STREQUAL "race")
    target_compile_definitions(simt_shim_race PRIVATE SIMT_RACE)
  endif()
  simt_common_properties(simt_shim_${flavour})
endfunction()

set(SIMT_SANITIZE -O1 -fno-omit-frame-pointer -fsanitize=address,undefined
                  -fno-sanitize-recover=all)

function(simt_common_properties target)
  target_compile_features(${target} PRIVATE cxx_std_17)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_EXTENSIONS OFF)
  target_include_directories(${target} BEFORE PRIVATE "${SIMT_DIR}/include" "${SIMT_DIR}")
endfunction()

function(add_simt_library name flavour)
  if(NOT flavour MATCHES "^(plain|sanitize|race)$")
    message(FATAL_ERROR "add_simt_library: flavour '${flavour}' is not plain, sanitize or race")
  endif()
  add_simt_shim(${flavour})

  # -x c++: a compiler that is asked for C++ does not know .cu. Casts between a row's type and 16
  # bytes are not to be reasoned about. Function-local shared memory is this library's own.
  add_library(${name}_kernels OBJECT ${ARGN})
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  simt_common_properties(${name}_kernels)
  target_include_directories(${name}_kernels PRIVATE "${SIMT_DIR}/../..")
  target_compile_options(
    ${name}_kernels
    PRIVATE "SHELL:-x c++" ${SIMT_FLAGS} -UNDEBUG -Wno-unknown-pragmas -fno-strict-aliasing
            -fno-gnu-unique -fno-extern-tls-init)
  if(flavour STREQUAL "plain")
    target_compile_options(${name}_kernels PRIVATE -O2)
  elseif(flavour STREQUAL "sanitize")
    target_compile_options(${name}_kernels PRIVATE ${SIMT_SANITIZE})
  else()
    target_compile_options(${name}_kernels PRIVATE -O1 -fsanitize=thread)
  endif()

  # The shim comes first: of inline functions that both hold, the linker keeps the uninstrumented.
  add_library(${name} SHARED $<TARGET_OBJECTS:simt_shim_${flavour}>
                             $<TARGET_OBJECTS:${name}_kernels>)
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(${name} BEFORE INTERFACE "${SIMT_DIR}/include" "${SIMT_DIR}"
                                                      "${SIMT_DIR}/../..")
  target_compile_features(${name} INTERFACE cxx_std_17)
  target_link_options(${name} PRIVATE -Wl,-Bsymbolic -Wl,-z,defs)
  target_link_libraries(${name} PRIVATE ${CMAKE_DL_LIBS})
  if(flavour STREQUAL "sanitize")
    target_compile_options(${name} INTERFACE ${SIMT_SANITIZE})
    target_link_options(${name} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()
