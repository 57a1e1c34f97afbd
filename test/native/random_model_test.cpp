// Models with random weights: the same on every instruction set and thread count, moderate in every kind of matrix, and
// refused when they would not fit. Prints `logits-hash NAME HEX` as forward_test.cpp does.
#include "probes/random_model.h"

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "probes/available_memory.h"
#include "check.h"
#include "made_model.h"
#include "run/forward.h"

using namespace onebit;

namespace {

struct Case {
    const char* name;
    LinearKind linear, table;
};

LinearKind kind(LinearKind::Form form, DType dtype = DType::f32, int rank = 0) {
    LinearKind made;
    made.form = form;
    made.dtype = dtype;
    made.rank = rank;
    made.mid_scale = rank > 0;
    made.layernorm = made.bias = form == LinearKind::Form::sign && rank == 0;
    return made;
}

LinearKind ternary(int group) {
    LinearKind made;
    made.form = LinearKind::Form::ternary;
    made.group = group;
    return made;
}

LinearKind column(bool half) {
    LinearKind made = kind(LinearKind::Form::sign);
    made.column = true;
    made.half = half;
    return made;
}

const Case kCases[] = {
    {"random-sign", kind(LinearKind::Form::sign), kind(LinearKind::Form::dense, DType::q8)},
    {"random-chain", kind(LinearKind::Form::sign, DType::f32, 136), kind(LinearKind::Form::grouped)},
    {"random-column", column(false), kind(LinearKind::Form::dense, DType::q8)},
    {"random-column-half", column(true), kind(LinearKind::Form::dense, DType::q8)},
    {"random-grouped", kind(LinearKind::Form::grouped), kind(LinearKind::Form::dense, DType::f16)},
    {"random-f16", kind(LinearKind::Form::dense, DType::f16), kind(LinearKind::Form::dense, DType::bf16)},
    {"random-ternary", ternary(128), ternary(64)},
    {"random-ternary-rows", ternary(0), ternary(256)},
    {"random-q8", kind(LinearKind::Form::dense, DType::q8), kind(LinearKind::Form::dense, DType::f32)},
};

Config small_config() {
    Config config;
    config.vocab_size = 301;  // no whole number of blocks
    config.dim = 256;
    config.hidden_dim = 384;
    config.n_layers = 4;
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = 64;
    config.context_length = 64;
    config.tied_head = false;
    return config;
}

std::vector<NamedKind> kinds_of(const Case& test) { return made::kinds_of(small_config(), test.linear, test.table); }

std::shared_ptr<Model> make(const Case& test, const KernelSet& kernels, int threads, uint64_t seed,
                            Activations activations) {
    Pool pool;
    pool.resize(threads);
    RandomOptions options;
    options.seed = seed;
    options.kernels = &kernels;
    options.activations = activations;
    std::shared_ptr<Model> model;
    const Status status = random_model(small_config(), kinds_of(test), options, pool, &model);
    if (!CHECK(status.ok())) std::printf("%s: %s\n", status.code, status.message.c_str());
    return model;
}

std::vector<float> logits_of(const std::shared_ptr<Model>& model) {
    Pool pool;
    Workspace workspace(true);
    std::unique_ptr<Session> session;
    CHECK(Session::create(model, 16, DType::f16, &session).ok());
    std::vector<TokenInput> inputs;
    for (int token = 0; token < 9; ++token) inputs.push_back({session.get(), token * 33, true});
    std::vector<float> logits;
    CHECK(forward(*model, pool, workspace, inputs.data(), static_cast<int>(inputs.size()), [&](int, const float* row) {
              logits.insert(logits.end(), row, row + model->config.vocab_size);
          }).ok());
    return logits;
}

double root_mean_square(const std::vector<float>& values) {
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(sum / static_cast<double>(values.size()));
}

// Rows of a matrix that multiplies `cols` numbers of size 1 give numbers of about size 1.
void rows_are_moderate(const Model& model) {
    std::vector<float> row(static_cast<size_t>(model.embedding.cols));
    for (const int r : {0, 150, 300}) {
        const Matrix& matrix = model.embedding.stage[0];
        matrix.kind->read_row(*model.kernels, matrix, r, row.data());
        const double size = root_mean_square(row) * std::sqrt(static_cast<double>(row.size()));
        CHECK(size > 0.4 && size < 2.5);
        double sum = 0;
        for (const float value : row) sum += static_cast<double>(value);
        CHECK(std::fabs(sum) < 6 * size);  // signs are even
    }
}

void same_everywhere(const Case& test, Activations activations) {
    std::vector<float> expected;
    int count = 0;
    const IsaEntry* table = isa_table(&count);
    for (int i = 0; i < count; ++i) {
        const char* why = nullptr;
        const KernelSet* kernels = choose_kernels(table[i].name, &why);
        if (!kernels) continue;
        for (const int threads : {1, 3}) {
            const auto model = make(test, *kernels, threads, 7, activations);
            if (!model) return;
            const std::vector<float> logits = logits_of(model);
            if (expected.empty()) {
                expected = logits;
                rows_are_moderate(*model);
            }
            if (!CHECK(logits == expected)) std::printf("  %s on %s, %d threads\n", test.name, table[i].name, threads);
        }
    }
    const double size = root_mean_square(expected);
    CHECK(std::isfinite(size) && size > 0.2 && size < 5);
    CHECK(logits_of(make(test, *choose_kernels(nullptr, nullptr), 2, 8, activations)) != expected);  // another seed
    if (activations == Activations::f32) return;
    uint64_t h = 0xcbf29ce484222325u;  // FNV-1a, 64 bits
    for (const float value : expected) {
        for (int shift = 0; shift < 32; shift += 8)
            h = (h ^ (std::bit_cast<uint32_t>(value) >> shift & 255)) * 0x100000001b3u;
    }
    std::printf("logits-hash %s %016llx\n", test.name, static_cast<unsigned long long>(h));
}

void refuses() {
    Pool pool;
    RandomOptions options;
    options.kernels = choose_kernels(nullptr, nullptr);
    std::shared_ptr<Model> model;
    const auto code = [&](const Config& config, const Case& test) {
        const Status status = random_model(config, made::kinds_of(config, test.linear, test.table), options, pool, &model);
        CHECK(!model);
        return std::string(status.ok() ? "ok" : status.code);
    };
    Config config = small_config();
    config.dim = 264;  // groups need a multiple of 128
    CHECK(code(config, kCases[1]) == "ERR_CONFIG");
    config = small_config();
    options.memory_limit = 1000;
    CHECK(code(config, kCases[0]) == "ERR_MEMORY_LIMIT");
    options.memory_limit = 0;
    const std::atomic<bool> cancelled{true};
    options.cancel = &cancelled;
    CHECK(code(config, kCases[0]) == "ERR_ABORTED");
    options.cancel = nullptr;
    // 1024 layers of 65536 x 65536 bytes: more than any machine has.
    config = small_config();
    config.dim = config.hidden_dim = 65536;
    config.n_layers = 1024;
    CHECK(code(config, kCases[4]) == "ERR_OUT_OF_MEMORY");
}

void knows_free_memory() {
    const uint64_t available = available_memory();
    if (available == 0) return check::skip("free memory", "this system does not say how much there is");
    CHECK(available > uint64_t{1} << 24);
    CHECK(check_available(4096, "A page").ok());
    const Status status = check_available(~uint64_t{0}, "Everything");
    CHECK(!status.ok() && std::string(status.code) == "ERR_OUT_OF_MEMORY");
}

}  // namespace

int main() {
    for (const Case& test : kCases) {
        same_everywhere(test, Activations::int8);
        same_everywhere(test, Activations::f32);
    }
    refuses();
    knows_free_memory();
    return check::summary();
}
