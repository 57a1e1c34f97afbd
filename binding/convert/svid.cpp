#include "convert/svid.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/math.h"

namespace onebit {
namespace {

constexpr int kMaxRounds = 200;
constexpr double kSvdTolerance = 1e-13;  // relative growth of sigma^2 in one round
constexpr double kNmfTolerance = 1e-4;   // scikit-learn's default, as is kMaxRounds
constexpr int kLanes = 8;                // independent sums in a row: fixed, so the order of addition is fixed

// Sums over rows are added block by block in the order of the blocks, and the blocks depend on the shape alone:
// that is what makes the result independent of the number of threads.
constexpr int kMaxBlocks = 64;
constexpr int kMinBlockElements = 1 << 16;

using Doubles = std::vector<double>;

double dot_abs(const float* row, const double* v, int cols) {
    double lanes[kLanes] = {};
    int c = 0;
    for (; c + kLanes <= cols; c += kLanes) {
        for (int k = 0; k < kLanes; ++k) lanes[k] += std::fabs(static_cast<double>(row[c + k])) * v[c + k];
    }
    for (int k = 0; c < cols; ++c, ++k) lanes[k] += std::fabs(static_cast<double>(row[c])) * v[c];
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// || |row| - h g ||^2, or || row ||^2 without a g.
double distance(const float* row, const float* g, double h, int cols) {
    double square = 0;
    for (int c = 0; c < cols; ++c) {
        const double gap = std::fabs(static_cast<double>(row[c])) - (g ? h * static_cast<double>(g[c]) : 0.0);
        square += gap * gap;
    }
    return square;
}

double norm(const Doubles& x) {
    double sum = 0;
    for (const double value : x) sum += value * value;
    return std::sqrt(sum);
}

void scale(Doubles& x, double factor) {
    for (double& value : x) value *= factor;
}

// |W| with its passes: each reads W once, however many sums it takes from it.
class AbsMatrix {
public:
    AbsMatrix(const float* w, int rows, int cols, Pool& pool, const std::atomic<bool>* cancel)
        : w_(w), rows_(rows), cols_(cols), pool_(pool), cancel_(cancel) {
        const int64_t elements = static_cast<int64_t>(rows) * cols;
        blocks_ = static_cast<int>(std::clamp<int64_t>(elements / kMinBlockElements, 1, kMaxBlocks));
        blocks_ = std::min(blocks_, rows);
        sums_.resize(static_cast<size_t>(blocks_) * static_cast<size_t>(cols));
    }

    bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed); }

    // u = |W| v (rows); next = |W|^T u (cols)
    void multiply(const Doubles& v, Doubles& u, Doubles& next) {
        for_blocks([&](int block, int from, int to) {
            double* sums = block_sums(block);
            std::fill(sums, sums + cols_, 0.0);
            for (int r = from; r < to && !cancelled(); ++r) {
                const float* row = row_at(r);
                const double factor = dot_abs(row, v.data(), cols_);
                u[static_cast<size_t>(r)] = factor;
                for (int c = 0; c < cols_; ++c) sums[c] += factor * std::fabs(static_cast<double>(row[c]));
            }
        });
        add_blocks(next);
    }

    // The sum of row_sum(row, its number) over all rows.
    template <class RowSum>
    double total(const RowSum& row_sum) {
        for_blocks([&](int block, int from, int to) {
            totals_[block] = 0;
            for (int r = from; r < to && !cancelled(); ++r) totals_[block] += row_sum(row_at(r), r);
        });
        return std::accumulate(totals_, totals_ + blocks_, 0.0);
    }

private:
    const float* row_at(int r) const { return w_ + static_cast<size_t>(r) * static_cast<size_t>(cols_); }
    double* block_sums(int block) { return sums_.data() + static_cast<size_t>(block) * static_cast<size_t>(cols_); }

    template <class Body>
    void for_blocks(const Body& body) {
        const auto edge = [&](int block) { return static_cast<int>(int64_t{rows_} * block / blocks_); };
        pool_.run(blocks_, [&](int block) { body(block, edge(block), edge(block + 1)); });
    }

    void add_blocks(Doubles& out) {
        std::copy_n(sums_.data(), cols_, out.data());
        for (int block = 1; block < blocks_; ++block) {
            const double* sums = block_sums(block);
            for (int c = 0; c < cols_; ++c) out[static_cast<size_t>(c)] += sums[c];
        }
    }

    const float* w_;
    int rows_, cols_, blocks_;
    Pool& pool_;
    const std::atomic<bool>* cancel_;
    Doubles sums_;  // (blocks, cols)
    double totals_[kMaxBlocks] = {};
};

// v: unit singular vector, u = |W| v, so |u| is the singular value. Starts from equal entries: the wanted vector is
// non-negative, so a positive start always has a share of it.
int power_iteration(AbsMatrix& matrix, Doubles& v, Doubles& u) {
    Doubles next(v.size());
    std::fill(v.begin(), v.end(), 1.0 / std::sqrt(static_cast<double>(v.size())));
    double before = 0;
    for (int round = 1; round <= kMaxRounds; ++round) {
        matrix.multiply(v, u, next);
        if (matrix.cancelled()) return round;
        const double squared = norm(u) * norm(u);  // the Rayleigh quotient of v: it only grows
        if (round == kMaxRounds || squared - before <= kSvdTolerance * squared) return round;
        before = squared;
        const double length = norm(next);
        v.swap(next);
        scale(v, 1 / length);
    }
    return kMaxRounds;
}

// RandomState(seed).standard_normal(): the Mersenne Twister, two outputs to a double, and Marsaglia's polar method, which
// gives two numbers at a time, the second first.
class NumpyNormal {
public:
    explicit NumpyNormal(uint32_t seed) : twister_(seed) {}

    double operator()() {
        if (kept_) return *std::exchange(kept_, std::nullopt);
        double x, y, square;
        do {
            x = 2 * fraction() - 1;
            y = 2 * fraction() - 1;
            square = x * x + y * y;
        } while (square >= 1 || square == 0);
        const double factor = std::sqrt(-2 * log_exact(square) / square);
        kept_ = factor * x;
        return factor * y;
    }

private:
    double fraction() {
        const auto high = static_cast<uint32_t>(twister_() >> 5);  // a wider type than its 32 bits on some systems
        const auto low = static_cast<uint32_t>(twister_() >> 6);
        return (static_cast<double>(high) * 0x1p26 + static_cast<double>(low)) * 0x1p-53;
    }

    std::mt19937 twister_;  // the standard says which numbers it gives
    std::optional<double> kept_;
};

double distance_between(const Doubles& a, const Doubles& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += std::fabs(a[i] - b[i]);
    return sum;
}

// h = |W| g / |g|^2, then g = |W|^T h / |h|^2, until the gradients of both add up to less than the tolerance times their
// first sum. The gradient of h is |g|^2 times its move, and that of g |h|^2 times: nothing is negative, so that
// scikit-learn's projections change nothing.
int coordinate_descent(AbsMatrix& matrix, double mean, Doubles& g, Doubles& h) {
    NumpyNormal normal(0);
    const double average = std::sqrt(mean);
    for (double& value : g) value = std::fabs(average * normal());
    for (double& value : h) value = std::fabs(average * normal());
    Doubles next_g(g.size()), next_h(h.size());
    double first = 0;
    for (int round = 1;; ++round) {
        matrix.multiply(g, next_h, next_g);
        if (matrix.cancelled()) return round;
        const double g_squared = norm(g) * norm(g);
        scale(next_h, 1 / g_squared);
        const double h_squared = norm(next_h) * norm(next_h);
        scale(next_g, 1 / (g_squared * h_squared));
        const double violation = g_squared * distance_between(h, next_h) + h_squared * distance_between(g, next_g);
        h.swap(next_h);
        g.swap(next_g);
        if (round == 1) first = violation;
        if (round == kMaxRounds || violation <= kNmfTolerance * first) return round;
    }
}

void share_scale(Doubles& g, Doubles& h, double split) {
    const double g_norm = norm(g), h_norm = norm(h), sigma = g_norm * h_norm;
    const double h_share = split == 0.5 ? std::sqrt(sigma) : pow_exact(sigma, split);
    scale(h, h_share / h_norm);
    scale(g, sigma / h_share / g_norm);
}

Status write_f32(const Doubles& from, float* to, const char* name) {
    for (size_t i = 0; i < from.size(); ++i) {
        to[i] = static_cast<float>(from[i]);
        if (!std::isfinite(to[i])) {
            return error("ERR_NOT_FINITE", std::string(name) + "[" + std::to_string(i) + "] does not fit in f32");
        }
    }
    return {};
}

Status cancelled_error() { return error("ERR_CANCELLED", "the factorisation was cancelled"); }

}  // namespace

Status svid(const float* w, int rows, int cols, const SvidOptions& options, Pool& pool, float* g, float* h,
            SvidResult* result) {
    *result = {};
    AbsMatrix matrix(w, rows, cols, pool, options.cancel);
    const Doubles ones(static_cast<size_t>(cols), 1.0);
    const double sum = matrix.total([&](const float* row, int) { return dot_abs(row, ones.data(), cols); });
    const double squares = matrix.total([&](const float* row, int) { return distance(row, nullptr, 0, cols); });
    if (matrix.cancelled()) return cancelled_error();
    if (!std::isfinite(sum) || !std::isfinite(squares)) {
        return error("ERR_NOT_FINITE", "the matrix has a NaN or an infinite value");
    }
    std::fill(g, g + cols, 0.0f);
    std::fill(h, h + rows, 0.0f);
    if (sum == 0) return {};

    Doubles right(static_cast<size_t>(cols)), left(static_cast<size_t>(rows));
    const bool nmf = options.method == SvidMethod::nmf;
    const double mean = sum / (static_cast<double>(rows) * static_cast<double>(cols));
    result->rounds = nmf ? coordinate_descent(matrix, mean, right, left) : power_iteration(matrix, right, left);
    if (matrix.cancelled()) return cancelled_error();
    if (!nmf || options.split.has_value()) share_scale(right, left, options.split.value_or(0.5));
    if (Status status = write_f32(right, g, "g"); !status.ok()) return status;
    if (Status status = write_f32(left, h, "h"); !status.ok()) return status;
    const double gaps = matrix.total([&](const float* row, int r) { return distance(row, g, static_cast<double>(h[r]), cols); });
    result->relative_error = std::sqrt(gaps / squares);
    return matrix.cancelled() ? cancelled_error() : Status{};
}

}  // namespace onebit
