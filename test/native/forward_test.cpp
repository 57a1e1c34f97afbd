// The whole engine without Node: small models of every kind are written to a file, loaded, and run on every instruction
// set, thread count, chunk size and cache state that there is. All logits must be the same bytes. Prints one line
// `logits-hash NAME HEX` a model, so that a run under an emulator can be compared with one on real hardware.
// ONEBIT_VARIANTS=few leaves most thread counts and chunk sizes out: for emulators and sanitizers, which are slow.
#include <bit>
#include <cmath>
#include <cstdlib>

#include "check.h"
#include "made_model.h"
#include "run/forward.h"

using namespace onebit;

namespace {

struct Case {
    const char* name;
    Config config;
    std::vector<NamedKind> kinds;
    Activations activations;
    DType kv;
};

LinearKind dense(DType dtype) {
    LinearKind kind;
    kind.dtype = dtype;
    return kind;
}
LinearKind chain(int rank, bool mid, bool layernorm, bool bias) {
    LinearKind kind;
    kind.form = LinearKind::Form::sign;
    kind.rank = rank;
    kind.mid_scale = mid;
    kind.layernorm = layernorm;
    kind.bias = bias;
    return kind;
}
LinearKind grouped() {
    LinearKind kind;
    kind.form = LinearKind::Form::grouped;
    return kind;
}

Config small_config() {
    Config config;
    config.vocab_size = 203;
    config.dim = 128;
    config.hidden_dim = 256;
    config.n_layers = 3;
    config.n_heads = 6;
    config.n_kv_heads = 2;
    config.head_dim = 64;
    config.context_length = 200;
    return config;
}

std::vector<Case> cases() {
    std::vector<Case> all;
    const auto add = [&](const char* name, const Config& config, const LinearKind& linear, const LinearKind& table,
                         Activations activations, DType kv) {
        all.push_back({name, config, made::kinds_of(config, linear, table), activations, kv});
    };
    // One layer shows as much as three where only another kernel is in question.
    const auto one_layer = [](Config config) {
        config.n_layers = 1;
        return config;
    };
    const Config onebit = small_config();
    const LinearKind sign = chain(0, false, true, false), q8 = dense(DType::q8);
    add("onebit-int8", onebit, sign, q8, Activations::int8, DType::f16);
    add("onebit-f32", onebit, sign, q8, Activations::f32, DType::f32);
    add("onebit-int4", one_layer(onebit), sign, q8, Activations::int4, DType::f16);
    Config two_stages = small_config();
    two_stages.rope.scaling = RopeConfig::Scaling::yarn;
    two_stages.rope.factor = 4;
    two_stages.rope.original_context = 64;
    const LinearKind rank = chain(72, true, false, true), f16 = dense(DType::f16);
    add("chain-int8", two_stages, rank, f16, Activations::int8, DType::f16);
    LinearKind column = sign;
    column.column = column.half = true;
    add("column-int8", onebit, column, q8, Activations::int8, DType::f16);
    column.layernorm = false;
    add("column-f32", one_layer(onebit), column, q8, Activations::f32, DType::f32);
    add("chain-f32", two_stages, rank, f16, Activations::f32, DType::q8);
    add("chain-int4", one_layer(two_stages), rank, f16, Activations::int4, DType::f16);
    Config qwen3 = small_config();
    qwen3.qk_norm = true;
    qwen3.n_heads = 8;
    add("q1_0-int8", qwen3, grouped(), grouped(), Activations::int8, DType::f32);
    add("q1_0-f32", qwen3, grouped(), grouped(), Activations::f32, DType::f16);
    add("q1_0-int4", one_layer(qwen3), grouped(), grouped(), Activations::int4, DType::f16);
    Config features = small_config();  // whatever a Llama has not
    features.norm = NormKind::layer;
    features.norm_bias = features.attention_inner_norm = features.ffn_inner_norm = features.output_gate = true;
    features.window = 20;
    features.gated = false;
    features.activation = Activation::gelu;
    features.rope_dims = 32;
    features.parallel_residual = true;
    add("features-int8", features, sign, q8, Activations::int8, DType::f16);
    features.learned_positions = true;
    features.position_offset = 2;
    features.activation = Activation::relu2;
    add("learned-f32", one_layer(features), dense(DType::bf16), f16, Activations::f32, DType::f32);
    Config mixed = small_config();
    mixed.dim = 100;  // ragged on purpose
    mixed.hidden_dim = 172;
    mixed.head_dim = 10;
    mixed.tied_head = false;
    mixed.rope.interleaved = true;
    mixed.rope.scaling = RopeConfig::Scaling::llama3;
    mixed.rope.factor = 8;
    mixed.rope.original_context = 32;
    for (const Activations activations : {Activations::int8, Activations::f32}) {
        const bool floats = activations == Activations::f32;
        add(floats ? "dense-f32" : "dense-int8", mixed, q8, dense(DType::bf16), activations, floats ? DType::f32 : DType::f16);
        std::vector<NamedKind>& kinds = all.back().kinds;
        made::kind_of(kinds, "output") = dense(DType::f32);
        made::kind_of(kinds, "layers.0.wq") = dense(DType::f32);
        made::kind_of(kinds, "layers.0.wk") = dense(DType::f16);
        made::kind_of(kinds, "layers.1.wv") = dense(DType::bf16);
        made::kind_of(kinds, "layers.1.wo").bias = true;
    }
    return all;
}

constexpr int kTokens = 70;

std::vector<int32_t> prompt(const Config& config) {
    made::Random random{7};
    std::vector<int32_t> ids(kTokens);
    for (int32_t& id : ids) id = static_cast<int32_t>(random.next() % static_cast<uint64_t>(config.vocab_size));
    return ids;
}

// Feeds ids[from..] in chunks and appends every position's logits.
bool feed(const Model& model, Pool& pool, Session& session, const std::vector<int32_t>& ids, size_t from, size_t chunk,
          std::vector<float>* logits) {
    Workspace workspace(true);
    for (size_t at = from; at < ids.size(); at += chunk) {
        std::vector<TokenInput> inputs;
        for (size_t i = at; i < std::min(at + chunk, ids.size()); ++i) inputs.push_back({&session, ids[i], true});
        const Status status = forward(model, pool, workspace, inputs.data(), static_cast<int>(inputs.size()),
                                      [&](int, const float* row) {
                                          logits->insert(logits->end(), row, row + model.config.vocab_size);
                                      });
        if (!status.ok()) {
            std::printf("%s: %s\n", status.code, status.message.c_str());
            return false;
        }
    }
    return true;
}

bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::unique_ptr<Session> new_session(const std::shared_ptr<Model>& model, DType kv) {
    std::unique_ptr<Session> session;
    CHECK(Session::create(model, kTokens + 5, kv, &session).ok());
    return session;
}

struct Variants {
    std::vector<int> threads{1, 2, 3};
    std::vector<size_t> chunks{1, 7, 64};
};

Variants wanted_variants() {
    return check::few_variants() ? Variants{{2}, {7}} : Variants{};
}

// One model on one instruction set: all cache states, chunks and thread counts against `expected` (filled when empty).
void run_variants(const Case& test, const made::ModelFile& file, const KernelSet& kernels, std::vector<float>* expected) {
    const std::vector<int32_t> ids = prompt(test.config);
    const Variants variants = wanted_variants();
    for (const int threads : variants.threads) {
        Pool pool;
        pool.resize(threads);
        std::shared_ptr<Model> model;
        const Status loaded = file.load(kernels, test.activations, pool, &model);
        if (!CHECK(loaded.ok())) {
            std::printf("%s: %s\n", loaded.code, loaded.message.c_str());
            return;
        }
        for (const size_t chunk : variants.chunks) {
            auto session = new_session(model, test.kv);
            std::vector<float> logits;
            if (!CHECK(feed(*model, pool, *session, ids, 0, chunk, &logits))) return;
            if (expected->empty()) *expected = logits;
            if (!CHECK(same_bytes(logits, *expected))) {
                std::printf("  %s on %s, %d threads, chunks of %zu\n", test.name, kernels.name, threads, chunk);
            }
            // Rewound and forked sessions go on as if they were fresh.
            const size_t back = 33, vocab = static_cast<size_t>(test.config.vocab_size);
            const std::vector<float> tail(expected->begin() + static_cast<std::ptrdiff_t>(back * vocab), expected->end());
            session->rewind(static_cast<int>(back));
            auto fork = new_session(model, test.kv);
            CHECK(fork->copy_from(*session, static_cast<int>(back)).ok());
            std::vector<float> again, forked;
            CHECK(feed(*model, pool, *session, ids, back, chunk + 2, &again) && same_bytes(again, tail));
            CHECK(feed(*model, pool, *fork, ids, back, chunk + 1, &forked) && same_bytes(forked, tail));
        }
    }
}

// Two sessions in one step give what each gives alone.
void test_batch(const Case& test, const made::ModelFile& file, const KernelSet& kernels, const std::vector<float>& expected) {
    Pool pool;
    std::shared_ptr<Model> model;
    if (!CHECK(file.load(kernels, test.activations, pool, &model).ok())) return;
    const std::vector<int32_t> ids = prompt(test.config);
    auto first = new_session(model, test.kv), second = new_session(model, test.kv);
    std::vector<TokenInput> inputs;
    for (size_t i = 0; i < 20; ++i) inputs.push_back({first.get(), ids[i], true});
    for (size_t i = 0; i < 30; ++i) inputs.push_back({second.get(), ids[i], i > 20});
    Workspace workspace(true);
    const auto vocab = static_cast<size_t>(test.config.vocab_size);
    const auto sink = [&](int index, const float* row) {
        const size_t position = static_cast<size_t>(index < 20 ? index : index - 20);
        CHECK(std::memcmp(row, expected.data() + position * vocab, vocab * sizeof(float)) == 0);
    };
    CHECK(forward(*model, pool, workspace, inputs.data(), static_cast<int>(inputs.size()), sink).ok());
    CHECK(first->length() == 20 && second->length() == 30);
    inputs.push_back({first.get(), 1, false});  // not consecutive
    CHECK(!forward(*model, pool, workspace, inputs.data(), static_cast<int>(inputs.size()), sink).ok());
    const TokenInput outside{first.get(), test.config.vocab_size, false};
    CHECK(std::string(forward(*model, pool, workspace, &outside, 1, sink).code) == "ERR_TOKEN_RANGE");
    CHECK(first->length() == 20);
}

void test_bad_files(const made::ModelFile& file, const KernelSet& kernels) {
    Pool pool;
    const auto load = [&](const Config& config, const Contents& contents, uint64_t bytes) {
        LoadOptions options;
        options.path = file.path;
        options.file_bytes = bytes;
        options.kernels = &kernels;
        std::shared_ptr<Model> model;
        const Status status = load_model(config, contents, options, pool, &model);
        CHECK(status.ok() == (model != nullptr));
        return std::string(status.ok() ? "ok" : status.code);
    };
    CHECK(load(file.config, file.contents, file.file_bytes) == "ok");
    CHECK(load(file.config, file.contents, file.file_bytes + 1) == "ERR_FILE_SIZE");
    const auto with_tensors = [&](const auto& change) {
        Contents contents = file.contents;
        change(contents.tensors);
        return load(file.config, contents, file.file_bytes);
    };
    using Tensors = std::vector<TensorSlot>;
    CHECK(with_tensors([](Tensors& t) { t.pop_back(); }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t[3].bytes += 1; }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t[3].offset = ~uint64_t{0} - 4; }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t[3].name = t[4].name; }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t[3].name += 'x'; }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t.push_back(t[0]), t.back().name = "more"; }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t[2].type = t[2].type == FileType::u8 ? FileType::i8 : FileType::u8; }) == "ERR_TENSOR_TABLE");
    CHECK(with_tensors([](Tensors& t) { t.back().crc32c ^= 1; }) == "ERR_CHECKSUM");
    // Tensors are found by name, so the order in which they are told says nothing.
    CHECK(with_tensors([](Tensors& t) { std::swap(t.front(), t.back()); }) == "ok");
    Contents contents = file.contents;
    contents.kinds.pop_back();
    CHECK(load(file.config, contents, file.file_bytes) == "ERR_CONFIG");
    contents = file.contents;
    contents.kinds.push_back({"layers.9.wq", {}});
    CHECK(load(file.config, contents, file.file_bytes) == "ERR_CONFIG");
    Config config = file.config;
    config.dim = 1 << 30;
    CHECK(load(config, file.contents, file.file_bytes) == "ERR_CONFIG");
    config = file.config;
    config.n_kv_heads = 5;
    CHECK(load(config, file.contents, file.file_bytes) == "ERR_CONFIG");
}

uint64_t hash(const std::vector<float>& logits) {  // FNV-1a, 64 bits
    uint64_t h = 0xcbf29ce484222325u;
    for (const float value : logits) {
        const auto bits = std::bit_cast<uint32_t>(value);
        for (int shift = 0; shift < 32; shift += 8) h = (h ^ (bits >> shift & 255)) * 0x100000001b3u;
    }
    return h;
}

}  // namespace

int main() {
    int count = 0;
    const IsaEntry* table = isa_table(&count);
    for (const Case& test : cases()) {
        const made::ModelFile file(test.config, test.kinds, 1);
        std::vector<float> expected;
        for (int i = 0; i < count; ++i) {
            const char* why = nullptr;
            const KernelSet* kernels = choose_kernels(table[i].name, &why);
            if (!kernels) {
                check::skip((std::string(test.name) + " on " + table[i].name).c_str(), "not on this machine");
                continue;
            }
            run_variants(test, file, *kernels, &expected);
        }
        double largest = 0;
        for (const float value : expected) largest = std::max(largest, std::fabs(static_cast<double>(value)));
        CHECK(largest > 1e-3 && largest < 1e6);  // the models are alive, not all zero
        test_batch(test, file, *choose_kernels(nullptr, nullptr), expected);
        test_bad_files(file, *choose_kernels("scalar", nullptr));
        std::printf("logits-hash %s %016llx\n", test.name, static_cast<unsigned long long>(hash(expected)));
    }
    return check::summary();
}
