// What stands before and behind attention itself: rotary embedding on the way to the cache, and splits
// taken together.

// A head of a row to a work-group: normed where `normed`, rotated, and q to `out`, k and v to the cache.
kernel void rope_append(global const float *qkv, global const float *query_norm,
                        global const float *key_norm, global const float *table,
                        global const uint *positions, global const uint *slots, global half *cache,
                        global float *out, uint query_heads, uint kv_heads, uint normed,
                        float epsilon) {
    local float numbers[SIZE];
    local float lanes[LANES];
    uint head = get_group_id(0), row = get_group_id(1);
    uint at = get_local_id(0), items = get_local_size(0);
    global const float *from = qkv + (row * (query_heads + 2 * kv_heads) + head) * SIZE;
    for (uint i = at; i < SIZE; i += items)
        numbers[i] = from[i];
    bool query = head < query_heads, value = head >= query_heads + kv_heads;
    if (normed && !value) {
        float scale = norm_scale(numbers, SIZE, epsilon, lanes);
        for (uint i = at; i < SIZE; i += items)
            numbers[i] = numbers[i] * scale * (query ? query_norm[i] : key_norm[i]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (!value) {
        global const float *angles = table + (ulong)positions[row] * SIZE;
        for (uint i = at; i < SIZE / 2; i += items) {
            float a = numbers[i], b = numbers[i + SIZE / 2];
            float cosine = angles[i], sine = angles[i + SIZE / 2];
            numbers[i] = a * cosine - b * sine;
            numbers[i + SIZE / 2] = b * cosine + a * sine;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (query) {
        for (uint i = at; i < SIZE; i += items)
            out[(row * query_heads + head) * SIZE + i] = numbers[i];
        return;
    }
    uint slot = slots[row], lane = slot % BLOCK % LANES;
    uint kv_head = value ? head - query_heads - kv_heads : head - query_heads;
    global half *page = cache + page_of(slot, kv_head, kv_heads);
#if CODES
    // Scales are rounded to f16 before anything is divided by them. What is too small for one is 0.
    local ushort scales[GROUPS];
    local half *as_halves = (local half *)scales;
    for (uint g = at; g < GROUPS; g += items) {
        float greatest = 0.0f;
        for (uint i = g * GROUP; i < (g + 1) * GROUP; i++)
            greatest = fmax(greatest, fabs(numbers[i]));
        vstore_half_rte(fmin(greatest / 127.0f, SHORT_MAX), g, as_halves);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    global char *codes = (global char *)page;
    for (uint i = at; i < SIZE; i += items) {
        float scale = vload_half(i / GROUP, as_halves);
        float code = code_of(numbers[i] / (scale == 0.0f ? INFINITY : scale));
        codes[value ? SIZE * LANES + lane * VALUE_SIZE + i : i * LANES + lane] = convert_char(code);
    }
    for (uint g = at; g < GROUPS; g += items) {
        uint to = value ? VALUE_SCALES + lane * GROUPS + g : KEY_SCALES + g * LANES + lane;
        ((global ushort *)page)[to] = scales[g];
    }
#else
    for (uint i = at; i < SIZE; i += items) {
        uint to = value ? SIZE * LANES + lane * VALUE_SIZE + i : i * LANES + lane;
        vstore_half_rte(shortened(fmax(fmin(numbers[i], SHORT_MAX), -SHORT_MAX)), to, page);
    }
#endif
}

// Takes a row's and head's splits together, in order: a work-group to each. Where heads are whole groups
// of columns, the result goes out as codes, too.
kernel void attend_fold(global const float *parts, global const uint *positions, global float *out,
                        global char *codes, global float4 *groups, uint query_heads, uint window,
                        uint first, uint splits) {
    local float numbers[SIZE];
    uint head = get_group_id(0), row = first + get_group_id(1);
    uint2 seen = seen_by(positions[row], window);
    ulong place = ((ulong)get_group_id(1) * query_heads + head) * splits;
    for (uint i = get_local_id(0); i < SIZE; i += get_local_size(0)) {
        float most = NONE, weight = 0.0f, sum = 0.0f;
        for (uint split = seen.x / SPLIT; split * SPLIT < seen.y; split++) {
            global const float *part = parts + (place + split) * PART;
            float both = fmax(most, part[0]);
            float a = exponential(most - both), b = exponential(part[0] - both);
            weight = fma(weight, a, part[1] * b);
            sum = fma(sum, a, part[2 + i] * b);
            most = both;
        }
        float number = sum * (1.0f / weight);
        numbers[i] = number;
        out[(row * query_heads + head) * SIZE + i] = number;
    }
#if SIZE % GROUP == 0
    barrier(CLK_LOCAL_MEM_FENCE);
    uint group = (row * query_heads + head) * (SIZE / GROUP);
    for (uint g = get_local_id(0); g < SIZE / GROUP; g += get_local_size(0))
        QUANTISE(numbers + g * GROUP, GROUP, codes + (group + g) * GROUP, groups + group + g);
#endif
}
