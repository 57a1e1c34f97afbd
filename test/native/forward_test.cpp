// The whole engine without Node: small models of every kind are written to a file, loaded, and run on every instruction
// set, thread count, chunk size and cache state that there is. All logits must be the same bytes. Prints one line
// `logits-hash NAME HEX` a model, so that a run under an emulator can be compared with one on real hardware.
// ONEBIT_VARIANTS=few leaves most thread counts and chunk sizes out: for emulators and sanitizers, which are slow.
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "model/bind.h"
#include "check.h"
#include "run/forward.h"
#include "kernels/math.h"

using namespace onebit;

namespace {

// SplitMix64 (Steele, Lea, Flood 2014): integers only, so that every machine makes the same model.
struct Random {
    uint64_t state;
    uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    float uniform(float low, float high) {  // exact: 24 bits
        return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
    }
};

struct Case {
    const char* name;
    Config config;
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

Config small_config(LinearKind linear, LinearKind embedding) {
    Config config;
    config.vocab_size = 203;
    config.dim = 128;
    config.hidden_dim = 256;
    config.n_layers = 3;
    config.n_heads = 6;
    config.n_kv_heads = 2;
    config.head_dim = 64;
    config.context_length = 200;
    config.embedding = config.head = embedding;
    config.linears.assign(static_cast<size_t>(config.n_layers) * kRoles, linear);
    return config;
}

// One layer shows as much as three where only another kernel is in question.
Config one_layer(Config config) {
    config.n_layers = 1;
    config.linears.resize(kRoles);
    return config;
}

std::vector<Case> cases() {
    std::vector<Case> all;
    const Config onebit = small_config(chain(0, false, true, false), dense(DType::q8));
    all.push_back({"onebit-int8", onebit, Activations::int8, DType::f16});
    all.push_back({"onebit-f32", onebit, Activations::f32, DType::f32});
    all.push_back({"onebit-int4", one_layer(onebit), Activations::int4, DType::f16});
    Config two_stages = small_config(chain(72, true, false, true), dense(DType::f16));
    two_stages.rope.scaling = RopeConfig::Scaling::yarn;
    two_stages.rope.factor = 4;
    two_stages.rope.original_context = 64;
    all.push_back({"chain-int8", two_stages, Activations::int8, DType::f16});
    all.push_back({"chain-f32", two_stages, Activations::f32, DType::q8});
    all.push_back({"chain-int4", one_layer(two_stages), Activations::int4, DType::f16});
    Config qwen3 = small_config(grouped(), grouped());
    qwen3.qk_norm = true;
    qwen3.n_heads = 8;
    all.push_back({"q1_0-int8", qwen3, Activations::int8, DType::f32});
    all.push_back({"q1_0-f32", qwen3, Activations::f32, DType::f16});
    all.push_back({"q1_0-int4", one_layer(qwen3), Activations::int4, DType::f16});
    Config mixed = small_config(dense(DType::q8), dense(DType::bf16));
    mixed.dim = 100;  // ragged on purpose
    mixed.hidden_dim = 172;
    mixed.head_dim = 10;
    mixed.tied_head = false;
    mixed.head = dense(DType::f32);
    mixed.rope.interleaved = true;
    mixed.rope.scaling = RopeConfig::Scaling::llama3;
    mixed.rope.factor = 8;
    mixed.rope.original_context = 32;
    mixed.linears[0] = dense(DType::f32);
    mixed.linears[1] = dense(DType::f16);
    mixed.linears[9] = dense(DType::bf16);
    mixed.linears[10].bias = true;
    all.push_back({"dense-int8", mixed, Activations::int8, DType::f16});
    all.push_back({"dense-f32", mixed, Activations::f32, DType::f32});
    return all;
}

void append(std::vector<uint8_t>* bytes, const void* data, size_t n) {
    const auto* from = static_cast<const uint8_t*>(data);
    bytes->insert(bytes->end(), from, from + n);
}

// Bytes of one tensor, of a size that keeps activations lively but finite.
std::vector<uint8_t> random_tensor(const TensorRead& read, Random& random) {
    std::vector<uint8_t> bytes;
    const size_t count = static_cast<size_t>(read.rows) * static_cast<size_t>(read.cols);
    const bool signs = read.form == TensorRead::Form::sign_blocks || read.form == TensorRead::Form::sign_rows;
    const bool scales = read.form == TensorRead::Form::group_scale_blocks || read.form == TensorRead::Form::group_scale_rows;
    for (size_t i = 0; i < (signs ? count / 8 : count); ++i) {
        if (signs || read.element_bytes == 1) {
            bytes.push_back(static_cast<uint8_t>(random.next()));
        } else if (scales) {
            const uint16_t scale = f16_from_f32(random.uniform(0.02f, 0.1f));
            append(&bytes, &scale, 2);
        } else if (read.element_bytes == 2) {
            // f16 and bf16 alike: sign, an exponent that is small in both, any mantissa
            const auto bits = static_cast<uint16_t>((random.next() & 0x83ffu) | 0x2c00u);
            append(&bytes, &bits, 2);
        } else {
            const bool scale_of_q8 = read.name.ends_with(".scale");
            const float value = read.form == TensorRead::Form::dense_rows ? random.uniform(-0.2f, 0.2f)
                                : scale_of_q8 ? random.uniform(0.0005f, 0.002f)
                                              : random.uniform(0.3f, 1.2f) * (random.next() % 2 == 0 ? 0.2f : 0.25f);
            append(&bytes, &value, 4);
        }
    }
    return bytes;
}

struct ModelFile {
    std::string path;
    std::vector<TensorSlot> slots;
    uint64_t bytes = 0;
};

ModelFile write_model(const Case& test, const KernelSet& kernels) {
    Model shape;  // bound to nothing: only the sizes matter
    shape.config = test.config;
    shape.kernels = &kernels;
    std::vector<TensorRead> reads;
    bind_tensors(&shape, &reads);
    ModelFile file;
    file.path = (std::filesystem::temp_directory_path() / (std::string("onebit-forward-") + test.name)).string();
    std::ofstream out(file.path, std::ios::binary);
    Random random{1};
    for (const TensorRead& read : reads) {
        const std::vector<uint8_t> bytes = random_tensor(read, random);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        file.slots.push_back({file.bytes, bytes.size(), kernels.crc32c(0, bytes.data(), bytes.size())});
        file.bytes += bytes.size();
    }
    return file;
}

constexpr int kTokens = 70;

std::vector<int32_t> prompt(const Config& config) {
    Random random{7};
    std::vector<int32_t> ids(kTokens);
    for (int32_t& id : ids) id = static_cast<int32_t>(random.next() % static_cast<uint64_t>(config.vocab_size));
    return ids;
}

// Feeds ids[from..] in chunks and appends every position's logits.
bool feed(const Model& model, Pool& pool, Session& session, const std::vector<int32_t>& ids, size_t from, size_t chunk,
          std::vector<float>* logits) {
    Scratch scratch;
    for (size_t at = from; at < ids.size(); at += chunk) {
        std::vector<TokenInput> inputs;
        for (size_t i = at; i < std::min(at + chunk, ids.size()); ++i) inputs.push_back({&session, ids[i], true});
        const Status status = forward(model, pool, scratch, inputs.data(), static_cast<int>(inputs.size()),
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
    const char* wanted = std::getenv("ONEBIT_VARIANTS");
    return wanted && std::string(wanted) == "few" ? Variants{{2}, {7}} : Variants{};
}

// One model on one instruction set: all cache states, chunks and thread counts against `expected` (filled when empty).
void run_variants(const Case& test, const ModelFile& file, const KernelSet& kernels, std::vector<float>* expected) {
    const std::vector<int32_t> ids = prompt(test.config);
    const Variants variants = wanted_variants();
    for (const int threads : variants.threads) {
        Pool pool;
        pool.resize(threads);
        LoadOptions options;
        options.path = file.path;
        options.file_bytes = file.bytes;
        options.activations = test.activations;
        options.kernels = &kernels;
        std::shared_ptr<Model> model;
        const Status loaded = load_model(test.config, file.slots, options, pool, &model);
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
            fork->copy_from(*session);
            std::vector<float> again, forked;
            CHECK(feed(*model, pool, *session, ids, back, chunk + 2, &again) && same_bytes(again, tail));
            CHECK(feed(*model, pool, *fork, ids, back, chunk + 1, &forked) && same_bytes(forked, tail));
        }
    }
}

// Two sessions in one step give what each gives alone.
void test_batch(const Case& test, const ModelFile& file, const KernelSet& kernels, const std::vector<float>& expected) {
    Pool pool;
    LoadOptions options;
    options.path = file.path;
    options.file_bytes = file.bytes;
    options.activations = test.activations;
    options.kernels = &kernels;
    std::shared_ptr<Model> model;
    if (!CHECK(load_model(test.config, file.slots, options, pool, &model).ok())) return;
    const std::vector<int32_t> ids = prompt(test.config);
    auto first = new_session(model, test.kv), second = new_session(model, test.kv);
    std::vector<TokenInput> inputs;
    for (size_t i = 0; i < 20; ++i) inputs.push_back({first.get(), ids[i], true});
    for (size_t i = 0; i < 30; ++i) inputs.push_back({second.get(), ids[i], i > 20});
    Scratch scratch;
    const auto vocab = static_cast<size_t>(test.config.vocab_size);
    const auto sink = [&](int index, const float* row) {
        const size_t position = static_cast<size_t>(index < 20 ? index : index - 20);
        CHECK(std::memcmp(row, expected.data() + position * vocab, vocab * sizeof(float)) == 0);
    };
    CHECK(forward(*model, pool, scratch, inputs.data(), static_cast<int>(inputs.size()), sink).ok());
    CHECK(first->length() == 20 && second->length() == 30);
    inputs.push_back({first.get(), 1, false});  // not consecutive
    CHECK(!forward(*model, pool, scratch, inputs.data(), static_cast<int>(inputs.size()), sink).ok());
    const TokenInput outside{first.get(), test.config.vocab_size, false};
    CHECK(std::string(forward(*model, pool, scratch, &outside, 1, sink).code) == "ERR_TOKEN_RANGE");
    CHECK(first->length() == 20);
}

void test_bad_files(const Case& test, const ModelFile& file, const KernelSet& kernels) {
    Pool pool;
    const auto load = [&](const Config& config, const std::vector<TensorSlot>& slots, uint64_t bytes) {
        LoadOptions options;
        options.path = file.path;
        options.file_bytes = bytes;
        options.kernels = &kernels;
        std::shared_ptr<Model> model;
        const Status status = load_model(config, slots, options, pool, &model);
        CHECK(status.ok() == (model != nullptr));
        return std::string(status.ok() ? "ok" : status.code);
    };
    CHECK(load(test.config, file.slots, file.bytes) == "ok");
    CHECK(load(test.config, file.slots, file.bytes + 1) == "ERR_FILE_SIZE");
    std::vector<TensorSlot> slots = file.slots;
    slots.pop_back();
    CHECK(load(test.config, slots, file.bytes) == "ERR_TENSOR_TABLE");
    slots = file.slots;
    slots[3].bytes += 1;
    CHECK(load(test.config, slots, file.bytes) == "ERR_TENSOR_TABLE");
    slots = file.slots;
    slots[3].offset = ~uint64_t{0} - 4;
    CHECK(load(test.config, slots, file.bytes) == "ERR_TENSOR_TABLE");
    slots = file.slots;
    slots.back().crc32c ^= 1;
    CHECK(load(test.config, slots, file.bytes) == "ERR_CHECKSUM");
    Config config = test.config;
    config.dim = 1 << 30;
    CHECK(load(config, file.slots, file.bytes) == "ERR_CONFIG");
    config = test.config;
    config.n_kv_heads = 5;
    CHECK(load(config, file.slots, file.bytes) == "ERR_CONFIG");
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
        const ModelFile file = write_model(test, *choose_kernels("scalar", nullptr));
        std::vector<float> expected;
        for (int i = 0; i < count; ++i) {
            if (table[i].kernels == nullptr) {
                check::skip((std::string(test.name) + " on " + table[i].name).c_str(), "not on this machine");
                continue;
            }
            run_variants(test, file, *table[i].kernels, &expected);
        }
        double largest = 0;
        for (const float value : expected) largest = std::max(largest, std::fabs(static_cast<double>(value)));
        CHECK(largest > 1e-3 && largest < 1e6);  // the models are alive, not all zero
        test_batch(test, file, *choose_kernels(nullptr, nullptr), expected);
        test_bad_files(test, file, *choose_kernels("scalar", nullptr));
        std::printf("logits-hash %s %016llx\n", test.name, static_cast<unsigned long long>(hash(expected)));
        std::filesystem::remove(file.path);
    }
    return check::summary();
}
