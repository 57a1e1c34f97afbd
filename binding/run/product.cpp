#include "run/product.h"

#include <algorithm>

namespace onebit {

namespace {

// Outputs whose LayerNorm is computed at a time.
constexpr int kNormTogether = 4;

// One batch of a group. A task multiplies the rows of a band with the tokens of a span, or prepares one matrix's
// activations of one token.
class Product final : public Task {
public:
    Product(const Model& model, const GroupPlan& group, const Crew& crew, const Target* targets, const float* x, size_t x_stride)
        : kernels_(*model.kernels), group_(group), crew_(crew), targets_(targets), x_(x), x_stride_(x_stride), n_(crew.span.count) {}

    void run(int task, int thread) override {
        const Batch& batch = *batch_;
        if (preparing_) return prepare(batch.product[task / n_], task % n_, task % n_);
        const int span = task % batch.spans, band = task / batch.spans;
        const int first = n_ * span / batch.spans, count = n_ * (span + 1) / batch.spans - first;
        for (int i = 0; i < batch.count; ++i) {
            const ProductPlan& product = batch.product[i];
            const auto [row, end] = batch.rows(i, band);
            if (row == end || count == 0) continue;
            int slot = first;
            if (batch.own) {
                slot = thread * batch.span_tokens;
                prepare_own(i, thread, {first, count});
            }
            const Matrix& matrix = matrix_of(product);
            matrix.kind->multiply(kernels_, matrix, product.tiling, prepared(product, slot), rows(product, row, end - row, {first, count}));
        }
    }

    void start(const Batch& batch, bool preparing) {
        batch_ = &batch;
        preparing_ = preparing;
        if (!batch.own) return;
        for (int t = 0; t < group_.threads; ++t) std::fill_n(span_in_[t], kGroupMost, int16_t{-1});
    }

private:
    const Matrix& matrix_of(const ProductPlan& product) const { return targets_[product.index].linear->stage[batch_->stage]; }

    template <class T>
    T* at(Region region, size_t element) const {
        return reinterpret_cast<T*>(crew_.scratch + region.at) + element;
    }

    float* inner_row(const ProductPlan& product, int t) const {
        const auto stride = static_cast<size_t>(padded(targets_[product.index].linear->stage[0].rows, 64));
        return at<float>(group_.inner[product.index], static_cast<size_t>(t) * stride);
    }

    // The slots from `slot` on.
    Prepared prepared(const ProductPlan& product, int slot) const {
        const Matrix& matrix = matrix_of(product);
        const auto s = static_cast<size_t>(slot), cols = static_cast<size_t>(padded(matrix.cols, 64));
        const auto planes = static_cast<size_t>(matrix.kind->planes);
        return {at<int8_t>(product.q, s * planes * cols), at<float>(product.scale, s * planes), at<float>(product.x, s * cols),
                at<uint8_t>(product.tables, s * product.tiling.table_stride)};
    }

    // Where rows of some tokens' results go.
    Rows rows(const ProductPlan& product, int row, int count, Span tokens) const {
        const Target& target = targets_[product.index];
        const Matrix& matrix = matrix_of(product);
        const bool last = batch_->stage + 1 == target.linear->stages;
        const size_t stride = last ? target.stride : static_cast<size_t>(padded(matrix.rows, 64));
        float* const out = last ? target.out : inner_row(product, 0);
        const auto first = static_cast<size_t>(tokens.first), r = static_cast<size_t>(row);
        const size_t sums = sums_stride(kernels_, matrix);
        return {row, count, tokens.count, out + first * stride + r, stride,
                at<int32_t>(product.sums, first * static_cast<size_t>(matrix.kind->planes) * sums + r), sums};
    }

    void prepare(const ProductPlan& product, int t, int slot) const {
        const float* x = batch_->stage > 0 ? inner_row(product, t) : x_ + static_cast<size_t>(t) * x_stride_;
        const Matrix& matrix = matrix_of(product);
        matrix.kind->prepare(kernels_, matrix, product.tiling, x, prepared(product, slot));
    }

    // A thread's slots hold one span of each matrix.
    void prepare_own(int i, int thread, Span tokens) {
        int16_t& held = span_in_[thread][i];
        if (held == tokens.first) return;
        held = static_cast<int16_t>(tokens.first);
        for (int t = 0; t < tokens.count; ++t) {
            prepare(batch_->product[i], tokens.first + t, thread * batch_->span_tokens + t);
        }
    }

    const KernelSet& kernels_;
    const GroupPlan& group_;
    const Crew& crew_;
    const Target* targets_;
    const float* x_;
    size_t x_stride_;
    int n_;
    const Batch* batch_ = nullptr;
    bool preparing_ = false;
    int16_t span_in_[Pool::kMaxThreads][kGroupMost];  // the first token of what is there; -1: nothing
};

// LayerNorm and bias of outputs of linears with equally many rows.
void finish_outputs(const Model& model, const Crew& crew, const Target* targets, int count) {
    const auto idle = [](const Target& target) { return !target.linear->layernorm && !target.linear->bias; };
    if (std::all_of(targets, targets + count, idle)) return;
    const KernelSet& kernels = *model.kernels;
    const int rows = targets[0].linear->rows, n = crew.span.count, outputs = count * n;
    // A single token's take less time than a hand-over.
    const int threads = crew.pool ? crew.pool->threads() : 1;
    const int together = n == 1 ? kNormTogether : std::clamp(outputs / threads, 1, kNormTogether);
    const auto row = [&](int i) { return targets[i / n].out + static_cast<size_t>(i % n) * targets[i / n].stride; };
    const auto finish = [&](int task) {
        const int first = task * together, end = std::min(outputs, first + together);
        float* normed[kNormTogether] = {};
        int normed_count = 0;
        for (int i = first; i < end; ++i) {
            if (targets[i / n].linear->layernorm) normed[normed_count++] = row(i);
        }
        kernels.layernorm(normed, normed_count, rows, 1e-5f);  // nn.LayerNorm's default eps
        for (int i = first; i < end; ++i) {
            if (const float* bias = targets[i / n].linear->bias) kernels.add(row(i), bias, rows);
        }
    };
    const int tasks = (outputs + together - 1) / together;
    if (crew.pool) return crew.pool->run(tasks, finish);
    for (int task = 0; task < tasks; ++task) finish(task);
}

}  // namespace

void multiply_group(const Model& model, const GroupPlan& plan, const Crew& crew, const Target* targets, const float* x, size_t x_stride) {
    Product product(model, plan, crew, targets, x, x_stride);
    plan.layout.guard(crew.scratch);
    int linears = 0;
    for (int b = 0; b < plan.batches; ++b) {
        const Batch& batch = plan.batch[b];
        for (const bool preparing : {true, false}) {
            if (preparing && batch.own) continue;
            product.start(batch, preparing);
            const int tasks = preparing ? batch.count * crew.span.count : batch.spans * batch.bands;
            if (crew.pool) {
                crew.pool->run(tasks, product);
            } else {
                for (int task = 0; task < tasks; ++task) product.run(task, 0);
            }
        }
        if (batch.stage == 0) linears += batch.count;
    }
    plan.layout.release(crew.scratch);
    for (int i = 0; i < linears;) {
        const int first = i++;
        while (i < linears && targets[i].linear->rows == targets[first].linear->rows) ++i;
        finish_outputs(model, crew, targets + first, i - first);
    }
}

}  // namespace onebit
