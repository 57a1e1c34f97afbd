// The sizes people use: one result with every number of threads and on every instruction set, for the shapes and prompt
// lengths at which it once was several (13 and more query heads on a KV head; scratch memory that was too small for a
// part that was shorter than the others), and one as long as a whole 1.1B model. Workspaces have guards.
// ONEBIT_VARIANTS=few leaves the wide shapes out, and most prompts and numbers of threads.
#include <string>

#include "check.h"
#include "each_set.h"
#include "made_model.h"
#include "probes/random_model.h"
#include "run/forward.h"

using namespace onebit;

namespace {

const std::vector<int> kPrompts = {9, 17, 23, 35, 46, 47, 71, 142, 143, 146, 210};
const std::vector<int> kFewPrompts = {47, 71, 210};
const std::vector<int> kThreads = {1, 2, 3, 8};
constexpr int kScalarMost = 47;  // tokens: the scalar set is slow

struct Shape {
    const char* name;
    int dim, hidden, heads, kv_heads, head_dim, vocab, layers;
};
constexpr Shape kHeads[] = {{"16 heads on 1", 256, 384, 16, 1, 32, 300, 1},
                            {"13 heads on 1", 256, 384, 13, 1, 128, 300, 1},
                            {"12 heads on 1", 256, 384, 12, 1, 64, 300, 1},
                            {"32 heads on 2", 512, 384, 32, 2, 64, 300, 1}};
constexpr Shape kWide[] = {{"1.1B's width", 2048, 5632, 32, 4, 64, 1500, 1},
                           {"1.1B's width, feed-forward 2048", 2048, 2048, 32, 4, 64, 1500, 1},
                           {"1.1B's width, head of 32000", 2048, 5632, 32, 4, 64, 32000, 1},
                           {"7B's width", 4096, 11008, 32, 32, 128, 1500, 1},
                           {"7B's width, head of 32000", 4096, 11008, 32, 32, 128, 32000, 1}};
constexpr Shape kWhole = {"the whole 1.1B shape", 2048, 5632, 32, 4, 64, 32000, 22};

std::shared_ptr<Model> make(const Shape& shape, const LinearKind& linear, const KernelSet& kernels) {
    Config config;
    config.dim = shape.dim;
    config.hidden_dim = shape.hidden;
    config.n_heads = shape.heads;
    config.n_kv_heads = shape.kv_heads;
    config.head_dim = shape.head_dim;
    config.vocab_size = shape.vocab;
    config.n_layers = shape.layers;
    config.context_length = 512;
    LinearKind table;
    table.dtype = DType::q8;
    Pool pool;
    pool.resize(2);
    RandomOptions options;
    options.kernels = &kernels;
    std::shared_ptr<Model> model;
    const Status status = random_model(config, made::kinds_of(config, linear, table), options, pool, &model);
    if (!CHECK(status.ok())) std::printf("%s: %s\n", status.code, status.message.c_str());
    return model;
}

// The logits after the last few tokens of a prompt.
std::vector<float> logits_of(const std::shared_ptr<Model>& model, int threads, int tokens) {
    Pool pool;
    pool.resize(threads);
    Workspace workspace(true);
    std::unique_ptr<Session> session;
    CHECK(Session::create(model, 256, DType::f16, &session).ok());
    std::vector<TokenInput> inputs;
    for (int t = 0; t < tokens; ++t) inputs.push_back({session.get(), (t * 7919) % model->config.vocab_size, t >= tokens - 3});
    std::vector<float> logits;
    CHECK(forward(*model, pool, workspace, inputs.data(), tokens, [&](int, const float* row) {
              logits.insert(logits.end(), row, row + model->config.vocab_size);
          }).ok());
    return logits;
}

void one_result(const Shape& shape, const LinearKind& linear, const char* kind, const std::vector<const KernelSet*>& usable,
                const std::vector<int>& prompts) {
    std::vector<std::vector<float>> expected(prompts.size());
    for (const KernelSet* kernels : usable) {
        const auto model = make(shape, linear, *kernels);
        if (!model) return;
        for (size_t i = 0; i < prompts.size(); ++i) {
            if (kernels == usable.front() && usable.size() > 1 && prompts[i] > kScalarMost) continue;
            for (const int threads : check::few_variants() ? std::vector<int>{1, 3} : kThreads) {
                std::vector<float> logits = logits_of(model, threads, prompts[i]);
                if (expected[i].empty()) expected[i] = logits;
                if (CHECK(logits == expected[i])) continue;
                std::printf("  %s, %s on %s, %d threads, %d tokens\n", shape.name, kind, kernels->name, threads, prompts[i]);
            }
        }
    }
}

}  // namespace

int main() {
    LinearKind sign, chain, grouped, q8;
    sign.form = chain.form = LinearKind::Form::sign;
    sign.layernorm = true;
    chain.rank = 256;
    grouped.form = LinearKind::Form::grouped;
    q8.dtype = DType::q8;
    std::vector<const KernelSet*> usable;
    check::each_set([&](const KernelSet& kernels) { usable.push_back(&kernels); });
    const std::vector<int> prompts = check::few_variants() ? std::vector<int>{23, 71} : kPrompts;
    for (const Shape& shape : kHeads) {
        one_result(shape, sign, "onebit", usable, prompts);
        one_result(shape, chain, "chain", usable, prompts);
        one_result(shape, grouped, "q1_0", usable, prompts);
        one_result(shape, q8, "q8", usable, prompts);
    }
    if (check::few_variants()) {
        check::skip("wide shapes", "few variants are wanted");
        return check::summary();
    }
    for (const Shape& shape : kWide) one_result(shape, sign, "onebit", usable, shape.vocab > 1500 ? kFewPrompts : prompts);
    one_result(kWide[1], grouped, "q1_0", usable, prompts);
    one_result(kWide[1], chain, "chain", usable, prompts);
    std::vector<const KernelSet*> best{usable.back()};
    for (const KernelSet* kernels : usable) {
        if (std::string(kernels->name) == "avx2" && kernels != best[0]) best.push_back(kernels);
    }
    one_result(kWhole, sign, "onebit", best, {71});
    return check::summary();
}
