// What native code is given by its callers, mutated: dimensions, kinds, offsets, sizes and checksums of a small model, and
// the numbers in its file under a checksum that is right. Whatever comes must be refused with a code before anything large
// is allocated, or load and run one step. The number of mutants is ONEBIT_MUTANTS (default 200,000); the long run and the sanitizers ask for more.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "made_model.h"
#include "run/forward.h"

using namespace onebit;

namespace {

struct Random {
    uint64_t state;
    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
    size_t below(size_t n) { return static_cast<size_t>(next() % n); }
};

// Values at which sizes wrap, caps end, and multiples break.
int64_t interesting(Random& random, int64_t now) {
    static const int64_t values[] = {0,  -1,    1,     2,      7,       8,        63,           64,
                                     65, 127,   128,   1 << 10, 1 << 16, 65537,    1 << 20,      1 << 22,
                                     -8, 1 << 30, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()};
    if (random.below(3) == 0) return now + static_cast<int64_t>(random.below(5)) - 2;
    return values[random.below(std::size(values))];
}

struct Given {
    Config config;
    Contents contents;
    uint64_t file_bytes = 0;
};

Given small_model(const std::string& path, const KernelSet& kernels, std::vector<uint8_t>* contents) {
    Given given;
    Config& config = given.config;
    config.vocab_size = 16;
    config.dim = 128;
    config.hidden_dim = 64;
    config.n_layers = 1;
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = 32;
    config.context_length = 16;
    LinearKind table, sign, chain, grouped, dense, ternary, plain;
    table.dtype = DType::q8;
    sign.form = chain.form = LinearKind::Form::sign;
    sign.layernorm = true;
    chain.rank = 16;
    chain.mid_scale = true;
    chain.column = sign.half = true;
    grouped.form = LinearKind::Form::grouped;
    dense.bias = true;
    ternary.form = plain.form = LinearKind::Form::ternary;
    ternary.group = 64;
    const std::pair<const char*, LinearKind> kinds[] = {{"tok_embeddings", table}, {"layers.0.wq", sign}, {"layers.0.wk", chain},
                                                        {"layers.0.wv", grouped},  {"layers.0.wo", sign}, {"layers.0.w1", dense},
                                                        {"layers.0.w2", ternary},  {"layers.0.w3", plain}};
    for (const auto& [name, kind] : kinds) given.contents.kinds.push_back({name, kind});
    std::ofstream out(path, std::ios::binary);
    for (const TensorRead& read : made::tensors_of(config, given.contents.kinds)) {
        // Ones in every float and every other byte small: finite whatever kind of number a mutant reads them as.
        const bool codes = read.holds == TensorRead::Holds::ternary;
        const std::vector<uint8_t> bytes(read.file_bytes(), codes ? 0x12 : 0x31);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        given.contents.tensors.push_back({read.name, read.type, given.file_bytes, bytes.size(), kernels.crc32c(0, bytes.data(), bytes.size())});
        given.file_bytes += bytes.size();
        contents->insert(contents->end(), bytes.begin(), bytes.end());
    }
    return given;
}

// What a float may be, and what must not come through: written into numbers of any kind, or right across two of them.
void mutate_contents(Given* given, std::vector<uint8_t>* contents, std::fstream& file, const KernelSet& kernels,
                     Random& random) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    static const float values[] = {0.0f, -0.0f, 1.0f, -1.0f, 1e-45f, 1e-38f, 3e38f, -3e38f, infinity, -infinity,
                                   std::numeric_limits<float>::quiet_NaN()};
    TensorSlot& slot = given->contents.tensors[random.below(given->contents.tensors.size())];
    uint8_t* const bytes = contents->data() + slot.offset;
    for (size_t changes = 1 + random.below(4); changes > 0; --changes) {
        const auto noise = static_cast<uint32_t>(random.next());
        const float value = values[random.below(std::size(values))];
        // Halves too: the upper one of a float is a bfloat16, and noise is any f16.
        const size_t width = size_t{1} << random.below(3);
        uint8_t from[4];
        std::memcpy(from, random.below(2) == 0 ? static_cast<const void*>(&noise) : &value, 4);
        const size_t at = random.below(slot.bytes / width) * width;
        std::memcpy(bytes + at, from + 4 - width, width);
    }
    slot.crc32c = kernels.crc32c(0, bytes, slot.bytes);
    file.seekp(static_cast<std::streamoff>(slot.offset));
    file.write(reinterpret_cast<const char*>(bytes), static_cast<std::streamsize>(slot.bytes)).flush();
}

void mutate_config(Config* config, Random& random) {
    int32_t* const fields[] = {&config->vocab_size, &config->dim,        &config->hidden_dim, &config->n_layers,
                               &config->n_heads,    &config->n_kv_heads, &config->head_dim,   &config->context_length,
                               &config->rope_dims,  &config->window,     &config->position_offset};
    int32_t& field = *fields[random.below(std::size(fields))];
    field = static_cast<int32_t>(interesting(random, field));
}

void mutate_features(Config* config, Random& random) {
    bool* const flags[] = {&config->norm_bias,   &config->learned_positions, &config->qk_norm,        &config->attention_inner_norm,
                           &config->output_gate, &config->gated,             &config->ffn_inner_norm, &config->tied_head,
                           &config->parallel_residual};
    bool& flag = *flags[random.below(std::size(flags))];
    flag = !flag;
    config->norm = static_cast<NormKind>(random.below(3));
    config->activation = static_cast<Activation>(random.below(6));
    config->norm_eps = random.below(2) == 0 ? -1.0f : 1e-6f;
}

void mutate_kind(Contents* contents, Random& random) {
    if (contents->kinds.empty()) return;
    NamedKind& named = contents->kinds[random.below(contents->kinds.size())];
    LinearKind& kind = named.kind;
    switch (random.below(11)) {
        case 0: kind.form = static_cast<LinearKind::Form>(random.below(4)); break;
        case 1: kind.dtype = static_cast<DType>(random.below(5)); break;
        case 2: kind.rank = static_cast<int32_t>(interesting(random, kind.rank)); break;
        case 3: kind.mid_scale = !kind.mid_scale; break;
        case 4: kind.layernorm = !kind.layernorm; break;
        case 5: kind.bias = !kind.bias; break;
        case 6: named = contents->kinds[random.below(contents->kinds.size())]; break;
        case 7: named.name += "x"; break;
        case 8: kind.column = !kind.column; break;
        case 9: kind.half = !kind.half; break;
        default: contents->kinds.pop_back(); break;
    }
}

void mutate_rope(Config* config, Random& random) {
    RopeConfig& rope = config->rope;
    static const double values[] = {0, -1, 1, 1e-300, 1e300, 4, 8192, std::numeric_limits<double>::infinity(),
                                    std::numeric_limits<double>::quiet_NaN()};
    double* const fields[] = {&rope.theta,     &rope.factor,    &rope.low_freq_factor, &rope.high_freq_factor,
                              &rope.original_context, &rope.beta_fast, &rope.beta_slow, &rope.attention_factor};
    *fields[random.below(std::size(fields))] = values[random.below(std::size(values))];
    rope.scaling = static_cast<RopeConfig::Scaling>(random.below(6));
    rope.factors.assign(random.below(40), 1.5f);
    rope.interleaved = random.below(2) == 0;
}

void mutate_tensors(Given* given, Random& random) {
    std::vector<TensorSlot>& tensors = given->contents.tensors;
    if (tensors.empty()) return;
    TensorSlot& slot = tensors[random.below(tensors.size())];
    switch (random.below(9)) {
        case 0: slot.offset = random.next() >> random.below(64); break;
        case 1: slot.bytes = random.next() >> random.below(64); break;
        case 2: slot.crc32c ^= uint32_t{1} << random.below(32); break;
        case 3: slot = tensors[random.below(tensors.size())]; break;
        case 4: tensors.pop_back(); break;
        case 5: slot.name = tensors[random.below(tensors.size())].name; break;
        case 6: slot.type = static_cast<FileType>(random.below(6)); break;
        case 7: std::swap(slot, tensors[random.below(tensors.size())]); break;
        default: given->file_bytes = random.next() >> random.below(64); break;
    }
}

Given mutant(const Given& good, Random& random) {
    Given given = good;
    for (size_t changes = 1 + random.below(3); changes > 0; --changes) {
        switch (random.below(5)) {
            case 0: mutate_config(&given.config, random); break;
            case 1: mutate_kind(&given.contents, random); break;
            case 2: mutate_rope(&given.config, random); break;
            case 3: mutate_tensors(&given, random); break;
            default: mutate_features(&given.config, random);
        }
    }
    return given;
}

// A model that was accepted must be able to compute.
bool takes_a_step(const std::shared_ptr<Model>& model, Pool& pool, Workspace& workspace) {
    std::unique_ptr<Session> session;
    if (!Session::create(model, 1, DType::f16, &session).ok()) return false;
    const TokenInput input{session.get(), 0, true};
    const Status status = forward(*model, pool, workspace, &input, 1, [](int, const float*) {});
    return status.ok() || std::string(status.code) == "ERR_NOT_FINITE" || std::string(status.code) == "ERR_TERNARY_CODE";
}

size_t wanted_mutants() {
    const char* wanted = std::getenv("ONEBIT_MUTANTS");
    return wanted ? static_cast<size_t>(std::atoll(wanted)) : 200'000;
}

}  // namespace

int main() {
    const KernelSet& kernels = *choose_kernels(nullptr, nullptr);
    // Of its own: another checkout may be running the same test.
    const std::string name = "onebit-load-fuzz-" + std::to_string(std::random_device{}());
    const std::string path = (std::filesystem::temp_directory_path() / name).string();
    std::vector<uint8_t> good_contents;
    const Given good = small_model(path, kernels, &good_contents);
    const std::set<std::string> codes = {"ERR_CONFIG", "ERR_TENSOR_TABLE", "ERR_FILE_SIZE", "ERR_CHECKSUM", "ERR_NOT_FINITE", "ERR_TERNARY_CODE",
                                         "ERR_READ"};
    Pool pool;
    Workspace workspace(true);
    Random random{0x2545f4914f6cdd1d};
    size_t accepted = 0;
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    Given written = good;  // what the file holds now
    std::vector<uint8_t> contents = good_contents;
    for (size_t i = wanted_mutants(); i > 0; --i) {
        if (i % 64 == 1) {
            written = good;
            contents = good_contents;
            file.seekp(0);
            file.write(reinterpret_cast<const char*>(contents.data()), static_cast<std::streamsize>(contents.size())).flush();
        } else if (random.below(4) == 0) {
            mutate_contents(&written, &contents, file, kernels, random);
        }
        const bool plain = i == 1 || random.below(4) == 0;
        const Given given = plain ? written : mutant(written, random);
        LoadOptions options;
        options.path = path;
        options.file_bytes = given.file_bytes;
        options.kernels = &kernels;
        options.activations = static_cast<Activations>(random.below(3));
        std::shared_ptr<Model> model;
        const Status status = load_model(given.config, given.contents, options, pool, &model);
        if (status.ok()) {
            ++accepted;
            CHECK(model && model->weight_bytes() < (8u << 20) && takes_a_step(model, pool, workspace));
        } else {
            CHECK(!model && codes.count(status.code) == 1 && !status.message.empty());
        }
    }
    file.close();  // Windows removes no file that is open
    std::filesystem::remove(path);
    std::printf("%zu mutants were accepted and took a step\n", accepted);
    CHECK(accepted > 1000);  // otherwise the mutator only makes rubbish
    return check::summary();
}
