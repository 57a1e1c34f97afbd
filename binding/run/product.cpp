#include "run/product.h"

#include <algorithm>

namespace onebit {

namespace {

// Outputs whose columns and LayerNorms are computed at a time.
constexpr int kTogether = 4;

// What is done with a group, one thing after the other: activations are prepared, multiplied, and what stands behind the
// last matrix of a linear is applied.
enum class Phase : uint8_t { prepare, multiply, finish };

class Product final : public Task {
public:
    Product(const Model& model, const GroupPlan& group, const Crew& crew, const Target* targets, const float* x, size_t x_stride)
        : kernels_(*model.kernels), group_(group), crew_(crew), targets_(targets), x_(x), x_stride_(x_stride), n_(crew.span.count) {
        for (int t = 0; t < group.threads && group.front_cols > 0; ++t) fronted_[t] = {nullptr, 0};
    }

    // A task prepares activations of one token, one matrix's or all of those that something stands in front of; or it multiplies
    // the rows of a band with the tokens of a span.
    void run(int task, int thread) override {
        if (phase_ == Phase::finish) return finish(task, thread);
        const Batch& batch = *batch_;
        if (phase_ == Phase::prepare) return prepare_shared(task, thread);
        const int span = task % batch.spans, band = task / batch.spans;
        const int first = n_ * span / batch.spans, count = n_ * (span + 1) / batch.spans - first;
        for (int i = 0; i < batch.count; ++i) {
            const ProductPlan& product = batch.product[i];
            const int row = batch.row_at(i, band), end = batch.row_at(i, band + 1);
            if (row == end || count == 0) continue;
            if (batch.own) prepare_own(i, thread, {first, count});
            const int slot = batch.own ? thread * batch.span_tokens : first;
            const Matrix& matrix = matrix_of(product);
            matrix.kind->multiply(kernels_, matrix, product.tiling, prepared(product, slot), rows(product, row, end - row, {first, count}));
        }
    }

    // Goes to what is done next, and returns how many tasks that has; -1 when all is done.
    int next() {
        if (next_batch_ == group_.batches) return next_outputs();
        batch_ = &group_.batch[next_batch_];
        if (phase_ != Phase::prepare && !batch_->own) {
            phase_ = Phase::prepare;
            return shares_front() ? n_ : batch_->count * n_;
        }
        phase_ = Phase::multiply;
        ++next_batch_;
        for (int t = 0; t < group_.threads && batch_->own; ++t) std::fill_n(span_in_[t], kGroupMost, int16_t{-1});
        return batch_->spans * batch_->bands;
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
        return {at<int8_t>(product.q, s * planes * cols), at<float>(product.scale, s * planes),
                at<int32_t>(product.offsets, s * cols / 64), at<float>(product.x, s * cols),
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
        const size_t sums = sums_stride(matrix);
        return {row, count, tokens.count, out + first * stride + r, stride,
                at<int32_t>(product.sums, first * static_cast<size_t>(matrix.kind->planes) * sums + r), sums};
    }

    // Something stands in front of what this batch multiplies. What it makes of a token's x stays with the thread until it
    // meets another, so all matrices of a token are prepared before the next token's.
    bool shares_front() const { return group_.front_cols > 0 && batch_->stage == 0; }

    const float* input(const Linear& linear, int t, int thread) {
        const float* x = x_ + static_cast<size_t>(t) * x_stride_;
        if (!linear.front.any()) return x;
        float* made = at<float>(group_.front, static_cast<size_t>(thread) * group_.front_cols);
        Fronted& held = fronted_[thread];
        if (held.front && held.token == t && *held.front == linear.front) return made;
        held = {&linear.front, t};
        apply_front(kernels_, linear, x, made);
        return made;
    }

    void prepare(const ProductPlan& product, int t, int slot, int thread) {
        const float* x = batch_->stage > 0 ? inner_row(product, t) : input(*targets_[product.index].linear, t, thread);
        const Matrix& matrix = matrix_of(product);
        matrix.kind->prepare(kernels_, matrix, product.tiling, x, prepared(product, slot));
    }

    void prepare_shared(int task, int thread) {
        if (!shares_front()) return prepare(batch_->product[task / n_], task % n_, task % n_, thread);
        for (int i = 0; i < batch_->count; ++i) prepare(batch_->product[i], task, task, thread);
    }

    // A thread's slots hold one span of each matrix.
    void prepare_own(int i, int thread, Span tokens) {
        if (span_in_[thread][i] == tokens.first) return;
        const bool all = shares_front() && tokens.count > 1;
        const int end = all ? batch_->count : i + 1;
        for (int t = 0; t < tokens.count; ++t) {
            for (int j = i; j < end; ++j) prepare(batch_->product[j], tokens.first + t, thread * batch_->span_tokens + t, thread);
        }
        for (int j = i; j < end; ++j) span_in_[thread][j] = static_cast<int16_t>(tokens.first);
    }

    // Column, LayerNorm and bias of the next linears that have equally many rows, some outputs at a time: a LayerNorm of several
    // takes less time each. A single token's take less time than a hand-over.
    int next_outputs() {
        if (finished_end_ == group_.count) return -1;
        phase_ = Phase::finish;
        const Target* const first = finished_ = targets_ + finished_end_;
        bool idle = true;
        while (finished_end_ < group_.count && targets_[finished_end_].linear->rows == first->linear->rows) {
            const Linear& linear = *targets_[finished_end_++].linear;
            idle = idle && !linear.u && !linear.layernorm && !linear.bias;
        }
        outputs_ = static_cast<int>(targets_ + finished_end_ - first) * n_;
        const int threads = crew_.pool ? crew_.pool->threads() : 1;
        together_ = n_ == 1 ? kTogether : std::clamp(outputs_ / threads, 1, kTogether);
        return idle ? 0 : (outputs_ + together_ - 1) / together_;
    }

    float* output(int i) const { return finished_[i / n_].out + static_cast<size_t>(i % n_) * finished_[i / n_].stride; }

    // The column of the linear of output i, for as many of `most` outputs as are its own and whose inputs are there together;
    // returns how many.
    int add_columns(int i, int most, int thread) {
        const Linear& linear = *finished_[i / n_].linear;
        const int count = linear.front.any() ? 1 : std::min(most, n_ - i % n_);
        if (!linear.u) return count;
        float* y[kTogether] = {};
        const float* x[kTogether] = {};
        for (int j = 0; j < count; ++j) {
            y[j] = output(i + j);
            x[j] = input(linear, (i + j) % n_, thread);
        }
        kernels_.add_column(y, x, count, linear.u, linear.rows, linear.v, linear.cols);
        return count;
    }

    void finish(int task, int thread) {
        const int first = task * together_, end = std::min(outputs_, first + together_), rows = finished_[0].linear->rows;
        for (int i = first; i < end;) i += add_columns(i, end - i, thread);
        float* normed[kTogether] = {};
        int count = 0;
        for (int i = first; i < end; ++i) {
            if (finished_[i / n_].linear->layernorm) normed[count++] = output(i);
        }
        kernels_.layernorm(normed, count, rows, 1e-5f);  // nn.LayerNorm's default eps
        for (int i = first; i < end; ++i) {
            if (const float* bias = finished_[i / n_].linear->bias) kernels_.add(output(i), bias, rows);
        }
    }

    const KernelSet& kernels_;
    const GroupPlan& group_;
    const Crew& crew_;
    const Target* targets_;
    const float* x_;
    size_t x_stride_;
    int n_;
    Phase phase_ = Phase::finish;
    int next_batch_ = 0;
    const Batch* batch_ = nullptr;
    int16_t span_in_[Pool::kMaxThreads][kGroupMost];  // the first token of what is there; -1: nothing
    struct Fronted {
        const Front* front;
        int token;
    };
    Fronted fronted_[Pool::kMaxThreads];  // what a thread's row of group_.front holds; unset where nothing stands in front
    int finished_end_ = 0;
    const Target* finished_ = nullptr;
    int outputs_ = 0, together_ = 1;
};

}  // namespace

void multiply_group(const Model& model, const GroupPlan& plan, const Crew& crew, const Target* targets, const float* x, size_t x_stride) {
    Product product(model, plan, crew, targets, x, x_stride);
    const Layout::Guard guard(plan.layout, crew.scratch);
    for (int tasks; (tasks = product.next()) >= 0;) {
        if (crew.pool) {
            crew.pool->run(tasks, product);
        } else {
            for (int task = 0; task < tasks; ++task) product.run(task, 0);
        }
    }
}

}  // namespace onebit
