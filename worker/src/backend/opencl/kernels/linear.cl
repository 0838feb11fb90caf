// Rows of x times a packed matrix of codes: a work-item makes one output of up to R rows of x.
//
// A tile is 16 rows of the matrix; a strip is what it holds of 32 columns. A strip's codes are WORDS
// words of 16 lanes: lane i is row i, so neighbours read neighbouring words. Sums over a strip are
// exact integers; strips are added in f32, in order, by the same operations whatever R is.
//
// Given: BITS of a code; ZERO, taken off each; HALVES, scales of a strip; MINIMA; SUPER, whether
// scales are small integers times an f16 for 8 strips; MODE, see sums.cl.

#if BITS == 4
#define WORDS 4
#elif BITS == 5
#define WORDS 5
#elif BITS == 6
#define WORDS 6
#else
#define WORDS 8
#endif

#if SUPER
#if HALVES == 2
typedef char Scale;
#else
typedef uchar Scale;
#endif
#else
typedef half Scale;
#endif
#define SCALES (MINIMA || HALVES == 2 ? 2 : 1)

int dot4(uint a, uint b, int sum) {
#if DOT4
    return dot_acc_sat(as_char4(a), as_char4(b), sum);
#else
    char4 x = as_char4(a), y = as_char4(b);
    return sum + x.s0 * y.s0 + x.s1 * y.s1 + x.s2 * y.s2 + x.s3 * y.s3;
#endif
}

// Codes of columns 4 * STEP.. of a lane, as four bytes.
#if BITS == 8
#define CODES(w, STEP) (w)[STEP]
#else
#define LOW(w, STEP) (((STEP) & 1 ? (w)[(STEP) / 2] >> 4 : (w)[(STEP) / 2]) & 0x0F0F0F0Fu)
#if BITS == 4
#define CODES(w, STEP) LOW(w, STEP)
#elif BITS == 5
#define CODES(w, STEP) (LOW(w, STEP) | ((w)[4] >> (STEP) & 0x01010101u) << 4)
#else
#define CODES(w, STEP) (LOW(w, STEP) | ((w)[4 + (STEP) / 4] >> 2 * ((STEP) % 4) & 0x03030303u) << 4)
#endif
#endif

typedef struct {
    uint codes[WORDS];
    float scales[HALVES];
    float minimum;
} Lane;

// A lane of a strip. `phase`: which of its block's 8 strips the first strip is.
Lane lane_of(global const uint *codes, global const Scale *scales, global const half *supers,
             uint tile, uint depth, uint strip, uint phase, uint lane) {
    Lane it;
    uint at = tile * depth + strip;
    UNROLL
    for (uint j = 0; j < WORDS; j++)
        it.codes[j] = codes[(at * WORDS + j) * LANES + lane];
    global const Scale *own = scales + at * SCALES * LANES + lane;
#if SUPER
    uint blocks = (phase + depth + 7) / 8;
    uint block = (tile * blocks + (strip + phase) / 8) * (MINIMA ? 2 : 1) * LANES + lane;
    float by = vload_half(block, supers);
    UNROLL
    for (uint h = 0; h < HALVES; h++)
        it.scales[h] = by * convert_float(own[h * LANES]);
    it.minimum = MINIMA ? -(vload_half(block + LANES, supers) * convert_float(own[LANES])) : 0.0f;
#else
    it.scales[0] = vload_half(0, own);
    it.minimum = MINIMA ? vload_half(LANES, own) : 0.0f;
#endif
    return it;
}

// The exact dot product of half a strip's codes, or with HALVES == 1 of all, with those of x.
int dot_half(const Lane *it, uint8 x, uint half_index) {
    int exact = 0;
    if (HALVES == 1 || half_index == 0) {
        exact = dot4(CODES(it->codes, 0), x.s0, exact);
        exact = dot4(CODES(it->codes, 1), x.s1, exact);
        exact = dot4(CODES(it->codes, 2), x.s2, exact);
        exact = dot4(CODES(it->codes, 3), x.s3, exact);
    }
    if (HALVES == 1 || half_index == 1) {
        exact = dot4(CODES(it->codes, 4), x.s4, exact);
        exact = dot4(CODES(it->codes, 5), x.s5, exact);
        exact = dot4(CODES(it->codes, 6), x.s6, exact);
        exact = dot4(CODES(it->codes, 7), x.s7, exact);
    }
    return exact;
}

// Adds the share of a dot product: `codes` is the sum of the codes of x in it.
float add_share(int exact, float codes, float scale, float sum) {
    float dot = convert_float(exact);
    if (ZERO != 0)
        dot = fma(codes, -(float)ZERO, dot);
    return fma(dot, scale, sum);
}

// Adds a strip's share for a row: `x` are its 32 codes, `group` its scale, sum, first half's sum and
// scaled sum.
float add_strip(const Lane *it, uint8 x, float4 group, float sum) {
#if HALVES == 1
    sum = add_share(dot_half(it, x, 0), group.y, it->scales[0] * group.x, sum);
#else
    sum = add_share(dot_half(it, x, 0), group.z, it->scales[0] * group.x, sum);
    sum = add_share(dot_half(it, x, 1), group.y - group.z, it->scales[1] * group.x, sum);
#endif
    return MINIMA ? fma(it->minimum, group.w, sum) : sum;
}

// Outputs `first`.. of `width`, of a section of `outputs`; a work-item's rows are R * its place in
// dimension 1.
#define LINEAR(NAME, R)                                                                        \
    __attribute__((reqd_work_group_size(64, 1, 1))) SUB_GROUP_16 kernel void NAME(             \
        global const uint *codes, global const Scale *scales, global const half *supers,       \
        global const float *bias, global const uint4 *x, global const float4 *groups,          \
        global Out *out, uint rows, uint width, uint first, uint outputs, uint depth,          \
        uint segment, uint phase, uint extra) {                                                \
        BEGIN(R)                                                                               \
        for (uint strip = 0, left = segment; strip < depth; strip++) {                         \
            uint from = MODE == GATED ? 2 * tile : tile;                                       \
            Lane it = lane_of(codes, scales, supers, from, depth, strip, phase, lane);         \
            Lane other = it;                                                                   \
            if (MODE == GATED)                                                                 \
                other = lane_of(codes, scales, supers, from + 1, depth, strip, phase, lane);   \
            UNROLL                                                                             \
            for (uint r = 0; r < R; r++) {                                                     \
                uint at = min(row + r, rows - 1) * depth + strip;                              \
                uint8 own = (uint8)(x[2 * at], x[2 * at + 1]);                                 \
                float4 group = groups[at];                                                     \
                sums[r] = add_strip(&it, own, group, sums[r]);                                 \
                if (MODE == GATED)                                                             \
                    others[r] = add_strip(&other, own, group, others[r]);                      \
            }                                                                                  \
            NEXT(R)                                                                            \
        }                                                                                      \
        END(R)                                                                                 \
    }
