// The gated delta rule and what stands before it, written once over Lanes and compiled into every kernel set. Included inside
// the set's anonymous namespace, after lanes_rows.inl.
//
// A head's state of 128 x 128 floats is as large as a core's first-level cache, so it is gone through as seldom as can be:
// kDeltaLanes columns stay there while all steps pass over them, and one pass writes what a step leaves and adds up what
// the next one asks of it. With several columns at a time the additions of one do not wait for those of another.

template <int N>
inline void delta_columns(float* to, const float* from, const DeltaSteps& steps, const float* along, int k_dim, int column) {
    const size_t block = static_cast<size_t>(k_dim) * 16, at = static_cast<size_t>(column);
    Lanes expected[N], read[N], correction[N];
    unrolled<N>([&](auto n) ONEBIT_INLINE_LAMBDA { expected[n] = read[n] = lanes_zero(); });
    for (int i = 0; i < k_dim; i++) {
        const Lanes k = lanes_all(steps.k[i]), q = lanes_all(steps.q[i]);
        const float* row = from + static_cast<size_t>(i) * 16;
        unrolled<N>([&](auto n) ONEBIT_INLINE_LAMBDA {
            const Lanes s = lanes_load(row + static_cast<size_t>(n) * block);
            expected[n] = lanes_fma(k, s, expected[n]);
            read[n] = lanes_fma(q, s, read[n]);
        });
    }
    for (int t = 0; t < steps.count; t++, from = to) {
        const size_t here = static_cast<size_t>(t);
        const Lanes decay = lanes_all(steps.decay[t]), beta = lanes_all(steps.beta[t]), both = lanes_all(along[t]);
        unrolled<N>([&](auto n) ONEBIT_INLINE_LAMBDA {
            const size_t place = here * steps.v_stride + at + static_cast<size_t>(n) * 16;
            correction[n] = lanes_mul(beta, lanes_sub(lanes_load(steps.v + place), lanes_mul(decay, expected[n])));
            lanes_store(steps.out + place, lanes_fma(both, correction[n], lanes_mul(decay, read[n])));
            expected[n] = read[n] = lanes_zero();
        });
        const float* k = steps.k + here * steps.k_stride;
        const bool last = t + 1 == steps.count;
        const float *next_k = last ? k : k + steps.k_stride, *next_q = steps.q + (last ? here : here + 1) * steps.k_stride;
        if (last) {
            for (int i = 0; i < k_dim; i++) {
                const Lanes key = lanes_all(k[i]);
                const size_t row = static_cast<size_t>(i) * 16;
                unrolled<N>([&](auto n) ONEBIT_INLINE_LAMBDA {
                    const size_t place = row + static_cast<size_t>(n) * block;
                    lanes_store(to + place, lanes_fma(key, correction[n], lanes_mul(decay, lanes_load(from + place))));
                });
            }
            break;
        }
        for (int i = 0; i < k_dim; i++) {
            const Lanes key = lanes_all(k[i]), then_k = lanes_all(next_k[i]), then_q = lanes_all(next_q[i]);
            const size_t row = static_cast<size_t>(i) * 16;
            unrolled<N>([&](auto n) ONEBIT_INLINE_LAMBDA {
                const size_t place = row + static_cast<size_t>(n) * block;
                const Lanes s = lanes_fma(key, correction[n], lanes_mul(decay, lanes_load(from + place)));
                lanes_store(to + place, s);
                expected[n] = lanes_fma(then_k, s, expected[n]);
                read[n] = lanes_fma(then_q, s, read[n]);
            });
        }
    }
}

void delta_rule(float* to, const float* from, const DeltaSteps& steps, int k_dim, int v_dim) {
    float along[kMostDeltaSteps];
    for (int t = 0; t < steps.count; t++) {
        const float *k = steps.k + static_cast<size_t>(t) * steps.k_stride, *q = steps.q + static_cast<size_t>(t) * steps.k_stride;
        Lanes sum = lanes_zero();
        by_lanes(k_dim, [&](int i, auto part) { sum = lanes_fma(load(k + i, part), load(q + i, part), sum); });
        along[t] = lanes_sum(sum);
    }
    const int blocks = (v_dim + 15) / 16;
    by_groups<kDeltaLanes>(blocks, [&](int first, auto group) {
        const size_t place = static_cast<size_t>(first) * static_cast<size_t>(k_dim) * 16;
        delta_columns<decltype(group)::value>(to + place, from + place, steps, along, k_dim, first * 16);
    });
}

void unit_length(float* x, int n, float eps, float length) {
    const Lanes factor = lanes_all(length / sqrtf(sum_of_squares(x, n) + eps));
    by_lanes(n, [=](int i, auto part) { store(x + i, lanes_mul(load(x + i, part), factor), part); });
}

void convolve(float* out, const float* const* taps, const float* weight, size_t weight_stride, int n_taps, int n) {
    by_lanes(n, [=](int i, auto part) {
        Lanes sum = lanes_zero();
        for (int j = 0; j < n_taps; j++) {
            sum = lanes_fma(load(weight + static_cast<size_t>(j) * weight_stride + i, part), load(taps[j] + i, part), sum);
        }
        store(out + i, times_sigmoid(sum, sum), part);
    });
}
