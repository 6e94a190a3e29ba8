/* Large outputs, which no cache holds, are written past the caches: an ordinary store to memory that is in none of them
 * reads it first.
 *
 * v_put(p, v, stream)     v_store, or past the caches, to a p that is aligned to the vector
 * stream_end()            before others read what was written so */
#ifndef FASTNN_STREAM_H
#define FASTNN_STREAM_H

#include "kernels.h"
#include "simd.h"

#if defined(ISA_AVX512)
enum { STREAMING = 1 };
INLINE void v_stream(float *p, vf v) { _mm512_stream_ps(p, v); }
INLINE void stream_end(void) { _mm_sfence(); }
#elif defined(ISA_AVX2)
enum { STREAMING = 1 };
INLINE void v_stream(float *p, vf v) { _mm256_stream_ps(p, v); }
INLINE void stream_end(void) { _mm_sfence(); }
#else
enum { STREAMING = 0 };
INLINE void v_stream(float *p, vf v) { v_store(p, v); }
INLINE void stream_end(void) {}
#endif

enum {
    STREAM_FLOATS = 1 << 21, /* from so many on */
    LINE_FLOATS = 16,
    LINE = STREAMING ? LINE_FLOATS / VL : 1, /* vectors of a cache line, which should be written one after the other */
};

/* Whether y can be written in whole cache lines, in parts of `unit` floats, and is worth it. */
INLINE int streams(const struct tensor *y, int64_t unit)
{
    return STREAMING && elements(y) >= STREAM_FLOATS && unit % LINE_FLOATS == 0 && (uintptr_t)y->data % 64 == 0;
}

INLINE void v_put(float *p, vf v, int stream)
{
    if (stream) v_stream(p, v);
    else v_store(p, v);
}

#endif
