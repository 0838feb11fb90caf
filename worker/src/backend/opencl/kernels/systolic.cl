// The same products for many rows of x, by systolic arrays: 8 outputs to a sub-group of 8, and 8 rows
// of x at a time. Dot products are exact, and what is done with them is what linear.cl does, in the same
// order: the same bits.
//
// Given: SYSTOLIC, ARRAYS or EMULATED.

#define ARRAYS 1
#define EMULATED 2

// Adds the products of 8 rows of x, of which a lane has 4 of 32 columns, with the lane's output.
int8 multiplied(int8 x, int8 weights, int8 sums) {
#if SYSTOLIC == ARRAYS
    return intel_sub_group_i8_i8_matrix_mad_k32(x, weights, sums);
#else
    uint own[8];
    int all[8], rows[8];
    vstore8(as_uint8(weights), 0, own);
    vstore8(sums, 0, all);
    vstore8(x, 0, rows);
    for (uint m = 0; m < 8; m++)
        for (uint j = 0; j < 8; j++)
            all[m] = dot4(as_uint(sub_group_broadcast(rows[m], j)), own[j], all[m]);
    return vload8(0, all);
#endif
}

// A lane's codes as bytes; of `half_index` alone where a strip has two scales.
int8 bytes_of(const Lane *it, uint half_index) {
    int8 all = 0;
    if (HALVES == 1 || half_index == 0)
        all.lo = (int4)(CODES(it->codes, 0), CODES(it->codes, 1), CODES(it->codes, 2), CODES(it->codes, 3));
    if (HALVES == 1 || half_index == 1)
        all.hi = (int4)(CODES(it->codes, 4), CODES(it->codes, 5), CODES(it->codes, 6), CODES(it->codes, 7));
    return all;
}

// Adds a strip's share for 8 rows.
void add_strips(const Lane *it, int8 x, global const float4 *groups, const uint *at, float *sums) {
    UNROLL
    for (uint h = 0; h < HALVES; h++) {
        int exact[8];
        vstore8(multiplied(x, bytes_of(it, h), (int8)(0)), 0, exact);
        UNROLL
        for (uint m = 0; m < 8; m++) {
            float4 group = groups[at[m]];
            float codes = HALVES == 1 ? group.y : h == 0 ? group.z : group.y - group.z;
            sums[m] = add_share(exact[m], codes, it->scales[h] * group.x, sums[m]);
            if (MINIMA)
                sums[m] = fma(it->minimum, group.w, sums[m]);
        }
    }
}

#define LINEAR_8(NAME, BLOCKS)                                                                 \
    __attribute__((reqd_work_group_size(64, 1, 1)))                                            \
    __attribute__((intel_reqd_sub_group_size(8))) kernel void NAME(                            \
        global const uint *codes, global const Scale *scales, global const half *supers,       \
        global const float *bias, global const int *x, global const float4 *groups,            \
        global Out *out, uint rows, uint width, uint first, uint outputs, uint depth,          \
        uint segment, uint phase, uint extra) {                                                \
        BEGIN(8 * BLOCKS)                                                                      \
        for (uint strip = 0, left = segment; strip < depth; strip++) {                         \
            uint from = MODE == GATED ? 2 * tile : tile;                                       \
            Lane it = lane_of(codes, scales, supers, from, depth, strip, phase, lane);         \
            Lane other = it;                                                                   \
            if (MODE == GATED)                                                                 \
                other = lane_of(codes, scales, supers, from + 1, depth, strip, phase, lane);   \
            UNROLL                                                                             \
            for (uint b = 0; b < BLOCKS; b++) {                                                \
                uint at[8];                                                                    \
                int own[8];                                                                    \
                UNROLL                                                                         \
                for (uint m = 0; m < 8; m++) {                                                 \
                    at[m] = min(row + 8 * b + m, rows - 1) * depth + strip;                    \
                    own[m] = x[at[m] * 8 + get_sub_group_local_id()];                          \
                }                                                                              \
                int8 all = vload8(0, own);                                                     \
                add_strips(&it, all, groups, at, sums + 8 * b);                                \
                if (MODE == GATED)                                                             \
                    add_strips(&other, all, groups, at, others + 8 * b);                       \
            }                                                                                  \
            NEXT(8 * BLOCKS)                                                                   \
        }                                                                                      \
        if (output >= outputs)                                                                 \
            return;                                                                            \
        UNROLL                                                                                 \
        for (uint r = 0; r < 8 * BLOCKS; r++) {                                                \
            if (MODE == GRID || MODE == ROUNDED)                                               \
                totals[r] = add_on_grid(totals[r], sums[r]);                                   \
            if (row + r < rows)                                                                \
                out[(row + r) * width + first + output] =                                      \
                    FINISH(totals[r], sums[r], others[r], bias, output, extra);                \
        }                                                                                      \
    }

LINEAR_8(systolic_8, 1)
LINEAR_8(systolic_16, 2)
