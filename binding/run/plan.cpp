#include "run/plan.h"

#include <algorithm>

namespace onebit {

namespace {

// Tokens of a span between two attentions. With at least kLeastSpan for every thread, each thread takes spans of its own
// through all the linears: their tables and sums stay in its cache, and the threads meet twice a layer instead of a dozen
// times.
constexpr int kSpanTokens = 64, kLeastSpan = 8;

// Logits are made for this many tokens at a time: enough to read the head's rows once for several tokens, few enough
// that a vocabulary of 150,000 needs 10 MB.
constexpr int kLogitRows = 16;

// Query heads that meet a tile of keys or values together: enough to use what a load brings, few enough that their
// scores stay in the caches.
constexpr int kQueriesTogether = 24;

// The tables of several tokens are larger than a core's second-level cache (1.4 MB for 32 tokens of 2048 columns, with
// vpermi2w), and fetching them from another core's cache takes three times as long as making them. So every thread makes
// those of some columns, meets all its rows with them, and goes on to the next columns. More threads than there are spans
// of kLeastSpan tokens share rows too.
constexpr size_t kTileTableBytes = size_t{288} << 10;
// Below this many bytes of weights a task costs more to hand out than to do.
constexpr size_t kLeastTaskBytes = size_t{16} << 10;
// Tasks of each thread, so that one that ends early can help the others.
constexpr int kMostTasks = 8;

// A single token's activations are prepared by every thread for itself: sharing would cost a hand-over and the transport
// of the tables from one core's cache to the other's (7B shape, 2 threads, a token: 2.9 ms shared, 1.0 ms own). Several
// tokens' tables are made by tiles.
bool is_own(const Matrix& matrix, int tokens) { return tokens == 1 || matrix.kind->tables; }

void cut(Batch& batch, int tokens, int threads) {
    if (batch.own && tokens > 1) {
        batch.spans = std::clamp(tokens / kLeastSpan, 1, threads);
        batch.bands = std::max(1, threads / batch.spans);
    } else {
        const uint64_t fitting = batch.begin[batch.count] / (static_cast<uint64_t>(threads) * kLeastTaskBytes);
        const auto each = static_cast<int>(std::clamp<uint64_t>(fitting, 1, kMostTasks));
        batch.bands = threads * (tokens > 8 ? kMostTasks : each);
    }
    batch.span_tokens = (tokens + batch.spans - 1) / batch.spans;
}

// Tables for as many columns at a time as fit into a core's cache together with the span's other tokens.
Tiling tiling_of(const Model& model, const Matrix& matrix, const Batch& batch, int tokens) {
    Tiling tiling;
    if (!matrix.kind->tables) return tiling;
    const KernelSet& kernels = *model.kernels;
    const SignProduct& bytes_product = tokens >= kernels.many_tokens ? kernels.i8_many : kernels.i8;
    tiling.product = model.activations == Activations::int4 ? &kernels.i4 : &bytes_product;
    size_t bytes = tiling.product->table_bytes(matrix.cols);
    if (tokens > 1) {
        const int unit = tiling.product->tile_cols;
        const auto fitting = static_cast<int>(kTileTableBytes / tiling.product->table_bytes(unit)) / batch.span_tokens;
        tiling.tile_cols = std::max(1, fitting) * unit;
        bytes = std::min(bytes, tiling.product->table_bytes(tiling.tile_cols));
    }
    tiling.table_stride = (bytes + 63) / 64 * 64;
    return tiling;
}

void lay_out_product(const Model& model, ProductPlan& product, const Batch& batch, const GroupPlan& group, Layout& layout) {
    const Matrix& matrix = product.linear->stage[batch.stage];
    product.tiling = tiling_of(model, matrix, batch, group.tokens);
    const auto slots = static_cast<size_t>(batch.own ? group.threads * batch.span_tokens : group.tokens);
    const auto cols = static_cast<size_t>(padded(matrix.cols, 64)), planes = static_cast<size_t>(matrix.kind->planes);
    product.q = layout.take<int8_t>(slots * planes * cols);
    product.scale = layout.take<float>(slots * planes);
    if (matrix.kind->offsets) product.offsets = layout.take<int32_t>(slots * cols / 64);
    if (matrix.kind->floats) product.x = layout.take<float>(slots * cols);
    product.tables = layout.take<uint8_t>(slots * product.tiling.table_stride);
    product.sums = layout.take<int32_t>(static_cast<size_t>(group.tokens) * planes * sums_stride(matrix));
}

Batch batch_of(const Linear* const* linears, int count, int stage, bool own, int tokens) {
    Batch batch;
    batch.stage = stage;
    batch.own = own;
    for (int i = 0; i < count; ++i) {
        if (stage >= linears[i]->stages || is_own(linears[i]->stage[stage], tokens) != own) continue;
        const Matrix& matrix = linears[i]->stage[stage];
        const uint64_t bytes = static_cast<uint64_t>(padded(matrix.rows, matrix.row_unit)) * matrix.row_bytes;
        batch.product[batch.count].linear = linears[i];
        batch.product[batch.count].index = i;
        batch.begin[batch.count + 1] = batch.begin[batch.count] + bytes;
        ++batch.count;
    }
    return batch;
}

GroupPlan plan_group(const Model& model, std::initializer_list<const Linear*> linears, int tokens, int threads, size_t gap) {
    GroupPlan group(gap);
    group.tokens = tokens;
    group.threads = threads;
    const int count = group.count = static_cast<int>(linears.size());
    for (int i = 0; i < count; ++i) {
        const Linear& linear = *linears.begin()[i];
        if (linear.front.any()) group.front_cols = static_cast<size_t>(padded(linear.cols, 64));
        if (linear.stages < 2) continue;
        group.inner[i] = group.layout.take<float>(static_cast<size_t>(tokens) * static_cast<size_t>(padded(linear.stage[0].rows, 64)));
    }
    group.front = group.layout.take<float>(static_cast<size_t>(threads) * group.front_cols);
    for (int stage = 0; stage < 2; ++stage) {
        for (const bool own : {true, false}) {
            Batch batch = batch_of(linears.begin(), count, stage, own, tokens);
            if (batch.count == 0) continue;
            cut(batch, tokens, threads);
            for (int i = 0; i < batch.count; ++i) lay_out_product(model, batch.product[i], batch, group, group.layout);
            group.batch[group.batches++] = batch;
        }
    }
    return group;
}

// How many tasks share the query heads of a KV head: more tasks keep the threads evenly busy, fewer load K and V
// less often. Loading is counted as one query head.
int choose_head_tasks(int tasks, int heads, int threads) {
    int best = 1;
    int64_t least = INT64_MAX;
    for (int parts = 1; parts <= heads; ++parts) {
        if (heads % parts != 0) continue;
        const int64_t rounds = (int64_t{tasks} * parts + threads - 1) / threads;
        const int64_t cost = rounds * (heads / parts + 1);
        if (cost < least) {
            least = cost;
            best = parts;
        }
    }
    return best;
}

}  // namespace

int Batch::row_at(int i, int band) const {
    const Matrix& matrix = product[i].linear->stage[stage];
    const uint64_t at = begin[count] * static_cast<uint64_t>(band) / static_cast<uint64_t>(bands);
    if (at <= begin[i]) return 0;
    const uint64_t unit_bytes = static_cast<uint64_t>(matrix.row_unit) * matrix.row_bytes;
    const uint64_t row = (at - begin[i] + unit_bytes / 2) / unit_bytes * static_cast<uint64_t>(matrix.row_unit);
    return static_cast<int>(std::min(row, static_cast<uint64_t>(matrix.rows)));
}

Plan::Plan(const Model& model, int threads, const TokenInput* inputs, const int* positions, int n, size_t gap)
    : tokens(n), threads(threads), span_tokens(n), head(gap), layout(gap) {
    plan_spans(n);
    plan_attention(model.config, inputs, n);
    plan_delta(model.config, inputs, n);
    const auto wanted = static_cast<int>(std::count_if(inputs, inputs + n, [](const TokenInput& t) { return t.want_logits; }));
    logit_rows = std::min(wanted, kLogitRows);
    plan_layers(model, gap);
    lay_out(model, positions, n);
}

void Plan::plan_spans(int n) {
    if (n < kLeastSpan * threads) return;
    const int wanted = (n + kSpanTokens - 1) / kSpanTokens;
    const int rounds = (wanted + threads - 1) / threads;  // as many spans for every thread
    alone = true;
    span_tokens = (n + rounds * threads - 1) / (rounds * threads);
    spans = (n + span_tokens - 1) / span_tokens;
}

void Plan::plan_attention(const Config& config, const TokenInput* inputs, int n) {
    const int group = config.n_heads / config.n_kv_heads, together = std::max(1, kQueriesTogether / group);
    AttentionPlan& a = attention;
    bool single = true;  // every token is the only one of its session
    for (int t = 0; t < n; ++t) {
        const bool continues = t > 0 && inputs[t - 1].session == inputs[t].session;
        single = single && !continues;
        if (continues && a.block[a.blocks - 1].count < together) {
            ++a.block[a.blocks - 1].count;
        } else {
            a.block[a.blocks++] = {t, 1};
        }
    }
    a.head_tasks = choose_head_tasks(a.blocks * config.n_kv_heads, group, threads);
    a.tasks_per_block = config.n_kv_heads * a.head_tasks;
    a.most_queries = group / a.head_tasks * std::min(n, together);
    a.rotates = single && a.head_tasks == 1;
}

void Plan::plan_delta(const Config& config, const TokenInput* inputs, int n) {
    if (config.delta_layers.empty()) return;
    int most = 0;
    for (int t = 0; t < n; ++t) {
        const bool continues = t > 0 && inputs[t - 1].session == inputs[t].session;
        if (!continues) delta.block[delta.blocks++] = {t, 0};
        most = std::max(most, ++delta.block[delta.blocks - 1].count);
    }
    delta.block_tokens = std::min(most, kMostDeltaSteps);
    delta.k_row = static_cast<int>(padded(config.delta_k_dim, 16));
    delta.v_row = static_cast<int>(padded(config.delta_v_dim, 16));
}

void Plan::plan_layers(const Model& model, size_t gap) {
    const int team = alone ? 1 : threads;
    const auto plan = [&](std::initializer_list<const Linear*> linears) {
        GroupPlan group = plan_group(model, linears, span_tokens, team, gap);
        scratch_bytes_ = std::max(scratch_bytes_, group.layout.bytes());
        return group;
    };
    for (int l = 0; l < model.config.n_layers; ++l) {
        const Layer& layer = model.layers[static_cast<size_t>(l)];
        if (layer.like != l) continue;
        layers.resize(static_cast<size_t>(l) + 1);
        GroupPlan up = model.config.gated ? plan({&layer.w1, &layer.w3}) : plan({&layer.w1});
        const DeltaWeights& d = layer.delta;
        GroupPlan qkv = layer.is_delta ? plan({&d.qkv, &d.z, &d.beta, &d.alpha}) : plan({&layer.wq, &layer.wk, &layer.wv});
        layers.back() = {std::move(qkv), plan({&layer.wo}), std::move(up), plan({&layer.w2})};
    }
    if (logit_rows > 0) head = plan_group(model, {&model.head}, logit_rows, threads, gap);
}

void Plan::lay_out(const Model& model, const int* positions, int n) {
    const Config& config = model.config;
    const auto count = static_cast<size_t>(n), runners = static_cast<size_t>(threads);
    const auto stride = [](int size) { return static_cast<size_t>(padded(size, 64)); };
    dim = stride(config.dim);
    wq_rows = stride(config.wq_rows());
    q_dim = stride(config.q_dim());
    kv_dim = stride(config.kv_dim());
    hidden = stride(config.hidden_dim);
    vocab = stride(config.vocab_size);
    angles = static_cast<size_t>(padded(config.rotated() / 2, 16));
    const auto rows = [&](size_t row) { return layout.take<float>(count * row); };
    x = rows(dim), normed = rows(dim), out = rows(dim);
    q = rows(wq_rows), k = rows(kv_dim), v = rows(kv_dim), mixed = rows(q_dim);
    inner = rows(hidden), up = rows(config.gated ? hidden : 0);
    cos = rows(angles), sin = rows(angles);
    logits = layout.take<float>(static_cast<size_t>(logit_rows) * vocab);

    const int furthest = *std::max_element(positions, positions + n) + 1;
    const auto most = static_cast<size_t>(attention.most_queries);
    const auto score_row = static_cast<size_t>(padded(config.head_dim, 16) + padded(furthest, 16));
    queries = layout.take_each<AttendQuery>(runners, most);
    scores = layout.take_each<float>(runners, most * score_row);
    scratch = layout.take_each<unsigned char>(alone ? runners : 1, scratch_bytes_);
    head_scratch = layout.take<unsigned char>(head.layout.bytes());
    if (delta.blocks > 0) lay_out_delta(config, n);
}

void Plan::lay_out_delta(const Config& config, int n) {
    const auto rows = [&](size_t& stride, int size) {
        stride = static_cast<size_t>(padded(size, 64));
        return layout.take<float>(static_cast<size_t>(n) * stride);
    };
    channel = rows(channels, config.delta_channels());
    z = rows(delta_inner, config.delta_inner());
    recalled = rows(delta_inner, config.delta_inner());
    beta = rows(delta_heads, config.delta_v_heads);
    alpha = rows(delta_heads, config.delta_v_heads);
    const int row = 2 * (delta.k_row + delta.v_row) + 2;  // q, k, v, what is recalled, decay and beta
    delta_scratch = layout.take_each<float>(static_cast<size_t>(threads), static_cast<size_t>(delta.block_tokens) * static_cast<size_t>(row));
}

}  // namespace onebit
