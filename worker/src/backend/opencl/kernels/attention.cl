// Attention over the cache: query heads that read the same KV head share each read of it.
//
// Of numbers of a head and of positions, 32 are a group: the products of even ones are added up in
// order, those of odd ones beside them, then both sums, and groups in order.
//
// Given: HEADS, query heads of a work-group; BLOCK_READS, where sub-groups of 16 read whole pages.

#if BLOCK_READS && BLOCK % LANES == 0 && SIZE % GROUP == 0
#define BY_PAGES 1
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#endif

// Groups of positions of a split.
#define SPANS (SPLIT / GROUP)

// Rounds to 8 significant bits, and what is less than 2^-60 is 0.
float shortened_or_zero(float x) {
    return fabs(x) < 8.673617e-19f ? 0.0f : shortened(x);
}

// e^x for x <= 0, rounded likewise; exactly 1 for 0, and 0 below 2^-60.
float weight_of(float x) {
    float power = x * M_LOG2E_F;
    float n = (power + ROUND) - ROUND;
    float rest = power - n;
    float terms = 0.00958285f;
    terms = fma(terms, rest, 0.05590643f);
    terms = fma(terms, rest, 0.24024099f);
    terms = fma(terms, rest, 0.6931242f);
    float y = fma(terms, rest, 1.0f) * as_float((convert_int(fmax(n, -126.0f)) + 127) << 23);
    return x < -41.58883f ? 0.0f : shortened(y);
}

#if BY_PAGES

// Eight numbers, from `i` on, of the key of the lane's position. `scale`: of their group, where CODES.
float8 keys_at(global const half *page, uint i, float scale) {
#if CODES
    uchar8 codes = intel_sub_group_block_read_uc8((global const uchar *)page + i * LANES);
    float8 x = convert_float8(as_char8(codes)) * scale;
    float8 large = x * 65537.0f;
    return large - (large - x);
#else
    return convert_float8(as_half8(intel_sub_group_block_read_us8((global const ushort *)page + i * LANES)));
#endif
}

// Two numbers of the value of a position, of a group: the lane's, and the one 16 further on.
float2 values_at(global const half *page, uint position, uint group, float scale) {
    uint at = SIZE * LANES + position * VALUE_SIZE + group * GROUP;
#if CODES
    uchar2 codes = intel_sub_group_block_read_uc2((global const uchar *)page + at);
    float2 x = convert_float2(as_char2(codes)) * scale;
    float2 large = x * 65537.0f;
    return large - (large - x);
#else
    return convert_float2(as_half2(intel_sub_group_block_read_us2((global const ushort *)page + at)));
#endif
}

// The scores of the lane's position.
void score(local const float *query, global const half *page, float *scores) {
    uint lane = get_sub_group_local_id();
    ROLL
    for (uint group = 0; group < SIZE; group += GROUP) {
        float even[HEADS], odd[HEADS], scale = 0.0f;
#if CODES
        scale = convert_float(as_half(intel_sub_group_block_read_us(
            (global const ushort *)page + KEY_SCALES + group / GROUP * LANES)));
#endif
        UNROLL
        for (uint h = 0; h < HEADS; h++)
            even[h] = odd[h] = 0.0f;
        UNROLL
        for (uint part = 0; part < GROUP; part += LANES) {
            float own[HEADS];
            UNROLL
            for (uint h = 0; h < HEADS; h++)
                own[h] = query[h * SIZE + group + part + lane];
            UNROLL
            for (uint eight = 0; eight < LANES; eight += 8) {
                float keys[8];
                vstore8(keys_at(page, group + part + eight, scale), 0, keys);
                UNROLL
                for (uint i = 0; i < 8; i += 2)
                    UNROLL
                    for (uint h = 0; h < HEADS; h++) {
                        even[h] = fma(sub_group_broadcast(own[h], eight + i), keys[i], even[h]);
                        odd[h] = fma(sub_group_broadcast(own[h], eight + i + 1), keys[i + 1], odd[h]);
                    }
            }
        }
        UNROLL
        for (uint h = 0; h < HEADS; h++)
            scores[h] = scores[h] + (even[h] + odd[h]);
    }
}

// The weighted sums of a span's positions, of a group of numbers, to `sums`. Positions `from` to `to`
// are seen, counted from the split's first; what is beyond them was perhaps never written.
void weigh(global const half *cache, local const uint *pages, local const float *weights, uint span,
           uint group, uint from, uint to, local float *sums) {
    uint lane = get_sub_group_local_id();
    float even[HEADS][2], odd[HEADS][2];
    UNROLL
    for (uint h = 0; h < HEADS; h++)
        even[h][0] = even[h][1] = odd[h][0] = odd[h][1] = 0.0f;
    ROLL
    for (uint first = span * GROUP; first < (span + 1) * GROUP; first += LANES) {
        if (first >= to || first + LANES <= from)
            continue;
        uint last = min((uint)LANES, to - first) - 1;
        global const half *page = cache + pages[first / LANES];
        float own[HEADS], scales = 0.0f;
        UNROLL
        for (uint h = 0; h < HEADS; h++)
            own[h] = weights[h * SPLIT + first + lane];
#if CODES
        scales = vload_half(VALUE_SCALES + min(lane, last) * GROUPS + group, page);
#endif
        UNROLL
        for (uint p = 0; p < LANES; p += 2) {
            uint q = min(p, last), r = min(p + 1, last);
            float2 a = values_at(page, q, group, CODES ? sub_group_broadcast(scales, p) : 0.0f);
            float2 b = values_at(page, r, group, CODES ? sub_group_broadcast(scales, p + 1) : 0.0f);
            UNROLL
            for (uint h = 0; h < HEADS; h++) {
                float x = sub_group_broadcast(own[h], p), y = sub_group_broadcast(own[h], p + 1);
                even[h][0] = fma(x, a.x, even[h][0]);
                even[h][1] = fma(x, a.y, even[h][1]);
                odd[h][0] = fma(y, b.x, odd[h][0]);
                odd[h][1] = fma(y, b.y, odd[h][1]);
            }
        }
    }
    UNROLL
    for (uint h = 0; h < HEADS; h++)
        UNROLL
        for (uint n = 0; n < 2; n++)
            sums[h * SIZE + group * GROUP + n * LANES + lane] = even[h][n] + odd[h][n];
}

#else

// Number `i` of the key of a lane of a page.
float key_at(global const half *page, uint i, uint lane) {
#if CODES
    float code = convert_float(((global const char *)page)[i * LANES + lane]);
    return shortened(code * vload_half(KEY_SCALES + i / GROUP * LANES + lane, page));
#else
    return vload_half(i * LANES + lane, page);
#endif
}

// Number `i` of the value of a lane of a page.
float value_at(global const half *page, uint i, uint lane) {
    uint at = SIZE * LANES + lane * VALUE_SIZE + i;
#if CODES
    float code = convert_float(((global const char *)page)[at]);
    return shortened(code * vload_half(VALUE_SCALES + lane * GROUPS + i / GROUP, page));
#else
    return vload_half(at, page);
#endif
}

// The score of the position of a lane of a page with one query.
float score(local const float *query, global const half *page, uint lane) {
    float score = 0.0f;
    for (uint group = 0; group < SIZE; group += GROUP) {
        float even = 0.0f, odd = 0.0f;
        uint end = min(group + GROUP, (uint)SIZE);
        for (uint i = group; i < end; i += 2) {
            even = fma(query[i], key_at(page, i, lane), even);
            odd = fma(query[i + 1], key_at(page, i + 1, lane), odd);
        }
        score = score + (even + odd);
    }
    return score;
}

#endif

// A row, a split and query heads that share a KV head to a work-group: of each head the greatest score,
// the sum of weights relative to it, and the weighted sum of values, to `parts`. `shares` has for each
// place in dimension 1 the KV head, the first query head and how many; `rows` says for each row where
// its block table begins; `first` is the row that place 0 of dimension 2 has.
__attribute__((reqd_work_group_size(SPLIT, 1, 1))) SUB_GROUP_16 kernel void
attend_split(global const float *q, global const half *cache, global const uint *positions,
             global const uint *tables, global const uint *blocks, global const uint *shares,
             global float *parts, uint query_heads, uint kv_heads, float by, uint window,
             uint first, uint splits) {
    local float query[HEADS * SIZE], weights[HEADS * SPLIT], lanes[HEADS * LANES];
    uint at = get_local_id(0), split = get_group_id(0);
    uint row = first + get_group_id(2);
    uint2 seen = seen_by(positions[row], window);
    uint start = split * SPLIT;
    if (start >= seen.y || start + SPLIT <= seen.x)
        return;
    global const uint *share = shares + 3 * get_group_id(1);
    uint kv_head = share[0], head = share[1], heads = share[2];
    for (uint i = at; i < HEADS * SIZE; i += SPLIT) {
        uint of = head + min(i / SIZE, heads - 1);
        query[i] = shortened_or_zero(q[(row * query_heads + of) * SIZE + i % SIZE] * by);
    }
    global const uint *table = blocks + tables[row];
    uint from = max(seen.x, start), to = min(seen.y, start + SPLIT);
    uint position = start + at;
    bool sees = position >= from && position < to;
    // Lanes that see nothing look where others do.
    uint near = clamp(position, from, to - 1);
    uint slot = table[near / BLOCK] * BLOCK + near % BLOCK;
    uint page = page_of(slot, kv_head, kv_heads);
    ulong place = ((ulong)get_group_id(2) * query_heads + head) * splits + split;
#if BY_PAGES
    local float sums[SPANS * HEADS * SIZE];
    local uint pages[SPLIT / LANES];
    uint lane = get_sub_group_local_id(), own = sub_group_broadcast(at, 0) / LANES;
    page = sub_group_broadcast(page, 0);
    if (lane == 0)
        pages[own] = page;
    float scores[HEADS];
    UNROLL
    for (uint h = 0; h < HEADS; h++)
        scores[h] = 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (start + own * LANES < to && start + (own + 1) * LANES > from)
        score(query, cache + page, scores);
    UNROLL
    for (uint h = 0; h < HEADS; h++) {
        float most = sub_group_reduce_max(sees ? scores[h] : NONE);
        if (lane == 0)
            lanes[h * LANES + own] = most;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint h = 0; h < HEADS; h++) {
        float most = fmax(sub_group_reduce_max(lanes[h * LANES + lane]), NONE);
        weights[h * SPLIT + at] = sees ? weight_of(scores[h] - most) : 0.0f;
        if (at == 0 && h < heads)
            parts[(place + h * splits) * PART] = most;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (own < heads) {
        float sum = 0.0f;
        for (uint i = lane; i < SPLIT; i += LANES)
            sum = sum + weights[own * SPLIT + i];
        UNROLL
        for (uint width = LANES / 2; width > 0; width /= 2)
            sum = sum + intel_sub_group_shuffle_xor(sum, width);
        if (lane == 0)
            parts[(place + own * splits) * PART + 1] = sum;
    }
    from -= start;
    to -= start;
    ROLL
    for (uint task = own; task < SPANS * GROUPS; task += SPLIT / LANES) {
        uint span = task / GROUPS;
        if (span * GROUP < to && (span + 1) * GROUP > from)
            weigh(cache, pages, weights, span, task % GROUPS, from, to, sums + span * HEADS * SIZE);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = at; i < heads * SIZE; i += SPLIT) {
        float sum = 0.0f;
        for (uint span = from / GROUP; span * GROUP < to; span++)
            sum = sum + sums[span * HEADS * SIZE + i];
        parts[(place + i / SIZE * splits) * PART + 2 + i % SIZE] = sum;
    }
#else
    // Scores stand where their weights will: nothing but local memory lives across a barrier.
    local float greatest[HEADS * SPLIT];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint h = 0; h < HEADS; h++) {
        uint lane = slot % BLOCK % LANES;
        float one = sees ? score(query + h * SIZE, cache + page, lane) : NONE;
        weights[h * SPLIT + at] = greatest[h * SPLIT + at] = one;
    }
    for (uint width = SPLIT / 2; width > 0; width /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (at < width)
            for (uint i = at; i < HEADS * SPLIT; i += SPLIT)
                greatest[i] = fmax(greatest[i], greatest[i + width]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint h = 0; h < HEADS; h++) {
        float most = fmax(greatest[h * SPLIT], NONE), one = weights[h * SPLIT + at];
        weights[h * SPLIT + at] = sees ? weight_of(one - most) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (at < HEADS * LANES) {
        float sum = 0.0f;
        for (uint i = at % LANES; i < SPLIT; i += LANES)
            sum = sum + weights[at / LANES * SPLIT + i];
        lanes[at] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    // Where heads are fewer, the last is written again, with the same numbers: PoCL loses conditions and
    // bounds that it has to read.
    if (at < HEADS) {
        global float *part = parts + (place + min(at, heads - 1) * splits) * PART;
        part[0] = fmax(greatest[at * SPLIT], NONE);
        part[1] = folded(lanes + at * LANES);
    }
    for (uint i = at; i < HEADS * SIZE; i += SPLIT) {
        local const float *own = weights + i / SIZE * SPLIT;
        float sum = 0.0f;
        for (uint group = from / GROUP * GROUP; group < to; group += GROUP) {
            float even = 0.0f, odd = 0.0f;
            for (uint p = max(from, group); p < min(to, group + GROUP); p++) {
                uint seat = table[p / BLOCK] * BLOCK + p % BLOCK;
                global const half *values = cache + page_of(seat, kv_head, kv_heads);
                float value = value_at(values, i % SIZE, seat % BLOCK % LANES);
                float more = fma(own[p - start], value, p & 1 ? odd : even);
                even = p & 1 ? even : more;
                odd = p & 1 ? more : odd;
            }
            sum = sum + (even + odd);
        }
        parts[(place + min(i / SIZE, heads - 1) * splits) * PART + 2 + i % SIZE] = sum;
    }
#endif
}
