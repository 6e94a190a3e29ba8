/* Large outputs, which no cache holds, are written past the caches: an ordinary store to memory that is in none of them
 * reads it first.
 *
 * v_put(p, v, stream)     v_store, or past the caches, where p is aligned to the vector
 * stream_end()            before others read what was written so */
#ifndef FASTNN_STREAM_H
#define FASTNN_STREAM_H

#include "kernels.h"
#include "simd.h"

#if defined(ISA_AVX512)
INLINE void v_stream(float *p, vf v) { _mm512_stream_ps(p, v); }
INLINE void stream_end(void) { _mm_sfence(); }
#elif defined(ISA_AVX2)
INLINE void v_stream(float *p, vf v) { _mm256_stream_ps(p, v); }
INLINE void stream_end(void) { _mm_sfence(); }
#else
INLINE void v_stream(float *p, vf v) { v_store(p, v); }
INLINE void stream_end(void) {}
#endif

enum {
    STREAM_FLOATS = 1 << 21, /* from so many on */
    STREAM_PLACES = VL == 16 ? 1 << 30 : 8, /* written to in turn, if a vector is not a whole cache line */
};

/* Whether y can be written in whole vectors `unit` floats apart, and is worth it. */
INLINE int streams(const struct tensor *y, int64_t unit)
{
    return elements(y) >= STREAM_FLOATS && unit % VL == 0 && (uintptr_t)y->data % (VL * sizeof(float)) == 0;
}

INLINE void v_put(float *p, vf v, int stream)
{
    if (stream) v_stream(p, v);
    else v_store(p, v);
}

#endif
