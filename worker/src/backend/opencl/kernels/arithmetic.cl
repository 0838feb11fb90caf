// What every program begins with. All arithmetic is spelled out, so that a row's result is the same
// bits in every kernel: nothing may be contracted or reordered, and fma stands where it is meant.

#pragma OPENCL FP_CONTRACT OFF

// Given where the device has them: SUB_GROUPS; DOT4, dot products of bytes. Given where compiling is
// dear and loops are cheap: ROLLED.
#if SUB_GROUPS
#define SUB_GROUP_16 __attribute__((intel_reqd_sub_group_size(16)))
#else
#define SUB_GROUP_16
#endif
#if ROLLED
#define UNROLL
#define ROLL
#else
#define UNROLL _Pragma("unroll")
#define ROLL _Pragma("unroll 1")
#endif

// Lanes of a vector of the reference order: sums over a row run in 16 lanes, folded at the end.
#define LANES 16
// Columns that share a scale.
#define GROUP 32

#define LN_2_HIGH 0.6933594f
#define LN_2_LOW -2.1219444e-4f
#define ROUND 12582912.0f // 1.5 * 2^23: adding it rounds to a whole number, ties to even

// e^x to about 1e-7 of itself; exactly 1 for 0, and 0 below -87.
float exponential(float x) {
    float inside = fmin(fmax(x, -87.0f), 88.0f);
    float n = fma(inside, M_LOG2E_F, ROUND) - ROUND;
    float r = fma(n, -LN_2_HIGH, inside);
    r = fma(n, -LN_2_LOW, r);
    float terms = 0.00138146f;
    terms = fma(terms, r, 0.008368717f);
    terms = fma(terms, r, 0.04166839f);
    terms = fma(terms, r, 0.16666521f);
    terms = fma(terms, r, 0.49999994f);
    float beyond_one = fma(r * r, terms, r);
    float y = (beyond_one + 1.0f) * as_float((convert_int(n) + 127) << 23);
    return x < -87.0f ? 0.0f : y;
}

#define SILU 0
#define GELU_TANH 1

// The activation of a feed-forward's gate.
float activate(uint activation, float x) {
    float minus_u = 0.0f - x;
    if (activation == GELU_TANH)
        minus_u = fma((x * x) * 0.044715f, x, x) * (-2.0f * 0.7978846f); // sqrt(2 / pi)
    return x / (1.0f + exponential(minus_u));
}

// Folds the 16 lanes of a sum.
float folded(local float *lanes) {
    for (uint width = 8; width > 0; width /= 2)
        for (uint i = 0; i < width; i++)
            lanes[i] = lanes[i] + lanes[i + width];
    return lanes[0];
}

// The sum of squares of `count` numbers, by all of a work-group of at least 16; `lanes` are 16.
float squares(local const float *x, uint count, local float *lanes) {
    uint at = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (at < LANES) {
        float sum = 0.0f;
        for (uint i = at; i < count; i += LANES)
            sum = fma(x[i], x[i], sum);
        lanes[at] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (at == 0)
        folded(lanes);
    barrier(CLK_LOCAL_MEM_FENCE);
    return lanes[0];
}

// What an RMS norm multiplies each number by, besides its weight.
float norm_scale(local const float *x, uint count, float epsilon, local float *lanes) {
    float mean = squares(x, count, lanes) / convert_float(count);
    return 1.0f / sqrt(mean + epsilon);
}

// Rounds to a whole number from -127 to 127, ties to even.
float code_of(float x) {
    float inside = fmax(fmin(x, 127.0f), -127.0f);
    return (inside + ROUND) - ROUND;
}

// A group of a row as 8-bit integers: `codes` are 32 bytes, and of the group itself are kept its scale,
// the sum of its codes, of the first half of them, and that sum times the scale. Columns beyond `count`
// are 0.
#define QUANTISE(x, count, codes, group)                                                      \
    do {                                                                                      \
        float greatest = 0.0f;                                                                \
        for (uint q = 0; q < (count); q++)                                                    \
            greatest = fmax(greatest, fabs((x)[q]));                                          \
        float inverse = greatest > 0.0f ? 127.0f / greatest : 0.0f;                           \
        float low = 0.0f, high = 0.0f;                                                        \
        for (uint q = 0; q < GROUP; q++) {                                                    \
            float code = q < (count) ? code_of((x)[q] * inverse) : 0.0f;                      \
            (codes)[q] = convert_char(code);                                                  \
            low = q < LANES ? low + code : low;                                               \
            high = q < LANES ? high : high + code;                                            \
        }                                                                                     \
        float scale = greatest / 127.0f;                                                      \
        float sum = low + high;                                                               \
        *(group) = (float4)(scale, sum, low, sum * scale);                                \
    } while (0)
