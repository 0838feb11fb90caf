// As linear.cl, of a matrix of plain numbers: a tile holds, column after column, one number of each of
// its 16 rows; columns are added in f32, in order.
//
// Given: NUMBER, what they are; MODE, see sums.cl.

#define F32 0
#define F16 1
#define BF16 2

#if NUMBER == F32
typedef float Number;
#define LOAD(at, numbers) (numbers)[at]
#elif NUMBER == F16
typedef half Number;
#define LOAD(at, numbers) vload_half(at, numbers)
#else
typedef ushort Number;
#define LOAD(at, numbers) as_float((uint)(numbers)[at] << 16)
#endif

#define LINEAR(NAME, R)                                                                        \
    __attribute__((reqd_work_group_size(64, 1, 1))) SUB_GROUP_16 kernel void NAME(             \
        global const Number *numbers, global const Number *unused_scales,                      \
        global const Number *unused_supers, global const float *bias, global const float *x,   \
        global const float4 *unused_groups, global Out *out, uint rows, uint width,            \
        uint first, uint outputs, uint depth, uint segment, uint phase, uint extra) {          \
        BEGIN(R)                                                                               \
        uint from = (MODE == GATED ? 2 * tile : tile) * depth * LANES + lane;                  \
        for (uint column = 0, left = segment; column < depth; column++) {                      \
            uint at = from + column * LANES;                                                   \
            float weight = LOAD(at, numbers);                                                  \
            float other = MODE == GATED ? LOAD(at + depth * LANES, numbers) : 0.0f;            \
            UNROLL                                                                             \
            for (uint r = 0; r < R; r++) {                                                     \
                float own = x[min(row + r, rows - 1) * depth + column];                        \
                sums[r] = fma(weight, own, sums[r]);                                           \
                if (MODE == GATED)                                                             \
                    others[r] = fma(other, own, others[r]);                                    \
            }                                                                                  \
            NEXT(R)                                                                            \
        }                                                                                      \
        END(R)                                                                                 \
    }
