// The element types of updates, and 16 bytes of them at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "../cgsv.h"

namespace cgsv::cuda {

// What updates of type T accumulate to: the aggregate's type.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
struct Type {
  using type = T;
};

// f(Type<T>) for the dtype's T.
template <class F>
cudaError_t with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f64:
      return f(Type<double>());
    case DType::f32:
      return f(Type<float>());
    case DType::bf16:
      return f(Type<__nv_bfloat16>());
    default:
      return f(Type<__half>());
  }
}
// The same for an aggregate's dtype.
template <class F>
cudaError_t with_aggregate_type(DType dtype, const F& f) {
  return dtype == DType::f64 ? f(Type<double>()) : f(Type<float>());
}

__device__ inline double widen(double x) { return x; }
__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

// To nearest even; a double becomes a half through float, as in torch.
template <class T, class A>
__device__ inline T narrow(A x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(float(x));
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(float(x));
  } else {
    return T(x);
  }
}

// 16 bytes of a row, what one load or store instruction moves, as they lie in memory.
template <class T>
struct Pack {
  static constexpr int columns = 16 / int(sizeof(T));
  uint4 bits;

  // Element k, in the aggregate's type; k is known when compiling.
  __device__ Wide<T> operator[](int k) const {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
    if constexpr (std::is_same_v<T, double>) {
      return __longlong_as_double((long long)(uint64_t(words[2 * k + 1]) << 32 | words[2 * k]));
    } else if constexpr (std::is_same_v<T, float>) {
      return __uint_as_float(words[k]);
    } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      return __uint_as_float(k % 2 ? words[k / 2] & 0xffff0000u : words[k / 2] << 16);
    } else {
      return __half2float(__ushort_as_half((unsigned short)(words[k / 2] >> (k % 2 * 16))));
    }
  }
};

// The first `count` elements at p, zeros after them. `alignment` is that of p, in bytes, 16 at most,
// the same for the whole kernel.
template <class T>
__device__ inline Pack<T> load_pack(const T* p, int alignment, int count) {
  Pack<T> pack = {make_uint4(0, 0, 0, 0)};
  if (count >= Pack<T>::columns && alignment >= 16) {
    pack.bits = *reinterpret_cast<const uint4*>(p);
  } else if (count >= Pack<T>::columns && alignment >= 8) {
    const uint2 low = reinterpret_cast<const uint2*>(p)[0];
    const uint2 high = reinterpret_cast<const uint2*>(p)[1];
    pack.bits = make_uint4(low.x, low.y, high.x, high.y);
  } else if (count >= Pack<T>::columns && alignment >= 4) {
    const unsigned* words = reinterpret_cast<const unsigned*>(p);
    pack.bits = make_uint4(words[0], words[1], words[2], words[3]);
  } else if (count > 0) {
    T values[Pack<T>::columns];
#pragma unroll
    for (int k = 0; k < Pack<T>::columns; ++k) values[k] = k < count ? p[k] : narrow<T>(0.0f);
    memcpy(&pack, values, 16);
  }
  return pack;
}

// A whole pack at p, which is aligned to a Piece. Nobody writes there while the kernel runs.
template <class Piece, class T>
__device__ inline Pack<T> load_pieces(const T* p) {
  constexpr int count = 16 / int(sizeof(Piece));
  Piece pieces[count];
#pragma unroll
  for (int k = 0; k < count; ++k) pieces[k] = __ldg(reinterpret_cast<const Piece*>(p) + k);
  Pack<T> pack;
  memcpy(&pack, pieces, 16);
  return pack;
}

// A whole pack to p; `alignment` as above.
template <class T>
__device__ inline void store_pack(T* p, int alignment, const Pack<T>& pack) {
  if (alignment >= 16) {
    *reinterpret_cast<uint4*>(p) = pack.bits;
  } else {
    T values[Pack<T>::columns];
    memcpy(values, &pack, 16);
#pragma unroll
    for (int k = 0; k < Pack<T>::columns; ++k) p[k] = values[k];
  }
}

// Past the caches: what is written is not read again soon. p is aligned to 16 bytes.
template <class T>
__device__ inline void stream_pack(T* p, const T (&values)[Pack<T>::columns]) {
  uint4 bits;
  memcpy(&bits, values, 16);
  __stcs(reinterpret_cast<uint4*>(p), bits);
}

}  // namespace cgsv::cuda
