// Weights that native code reads from files of other formats: byte for byte what the plain conversions of whole tensors make,
// on every set and any number of threads; and files and tensors that are wrong.
// ONEBIT_VARIANTS=few: one seed for each set.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>

#include "check.h"
#include "made_model.h"
#include "model/fill.h"

using namespace onebit;
using made::small_config;

namespace {

// A file that goes away with the object.
struct Scratch {
    std::string path;
    explicit Scratch(const std::vector<uint8_t>& bytes) {
        const std::string name = "onebit-stored-" + std::to_string(std::random_device{}());
        path = (std::filesystem::temp_directory_path() / name).string();
        std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    ~Scratch() {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
};

// A model's tensors as another format has them, and what each becomes.
struct Source {
    std::vector<StoredTensor> tensors;
    std::vector<uint8_t> files[2];  // tensors lie in either
    std::vector<std::pair<std::string, std::vector<uint8_t>>> converted;
};

// Bytes whose halves and floats are all finite: no two of them have an exponent of ones, however they lie.
std::vector<uint8_t> stored_bytes(SourceType type, size_t elements, made::Random& random) {
    std::vector<uint8_t> bytes(elements / block_elements(type) * block_bytes(type));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next() & 0xbf);
    return bytes;
}

// The same with no code of 3, which no ternary weight has: every two bits are 0, 1 or 2.
std::vector<uint8_t> ternary_bytes(SourceType type, size_t elements, made::Random& random) {
    std::vector<uint8_t> bytes(elements / block_elements(type) * block_bytes(type));
    for (uint8_t& byte : bytes) {
        for (int i = 0; i < 4; ++i) byte = static_cast<uint8_t>(byte << 2 | random.between(0, 2));
    }
    return bytes;
}

// Rows that rounding treats in its own ways: of zeros, of numbers that are nearly zero, of one large number.
void put_odd_rows(std::vector<float>& values, size_t cols) {
    const auto row = [&](size_t r) { return values.begin() + static_cast<std::ptrdiff_t>(r * cols); };
    if (values.size() < 8 * cols) return;
    std::fill_n(row(1), cols, 0.0f);
    std::fill_n(row(2), cols, -0.0f);
    std::fill_n(row(3), cols, 3e-33f);
    std::fill_n(row(4), cols, -1e-38f);
    std::fill_n(row(5), cols, 1e-40f);
    *row(6) = 1e30f;
}

std::vector<uint8_t> as_bytes(const void* from, size_t count) {
    const auto* bytes = static_cast<const uint8_t*>(from);
    return {bytes, bytes + count};
}

class Maker {
public:
    Maker(const std::vector<TensorRead>& reads, bool floats_only, uint64_t seed) : random_{seed}, floats_only_(floats_only), reads_(reads) {
        for (const TensorRead& read : reads_) add(read);
    }
    Source source;

private:
    // Of a type whose blocks fill the rows.
    SourceType any_type(size_t cols) {
        for (;;) {
            const auto type = static_cast<SourceType>(random_.between(0, floats_only_ ? 2 : static_cast<int>(SourceType::ptq1_0)));
            if (cols % block_elements(type) == 0) return type;
        }
    }

    void store(const std::string& name, SourceType type, const std::vector<uint8_t>& bytes) {
        const int number = random_.between(0, 1);
        std::vector<uint8_t>& file = source.files[number];
        for (int i = random_.between(0, 40); i > 0; --i) file.push_back(0xff);  // nothing need be aligned
        source.tensors.push_back({name, "their." + name, type, static_cast<size_t>(number), file.size()});
        file.insert(file.end(), bytes.begin(), bytes.end());
    }

    void add(const TensorRead& read) {
        const size_t rows = static_cast<size_t>(read.rows), cols = static_cast<size_t>(read.cols);
        if (read.holds == TensorRead::Holds::group_scales || (read.holds == TensorRead::Holds::floats && read.name.ends_with(".scale"))) return;
        if (read.holds == TensorRead::Holds::signs) {
            return add_groups(read, SourceType::q1_0, stored_bytes(SourceType::q1_0, rows * cols, random_), cols / 8);
        }
        if (read.holds == TensorRead::Holds::ternary) {
            const SourceType type = ternary_type(scales_of(base_of(read)));
            return add_groups(read, type, ternary_bytes(type, rows * cols, random_), cols / 4);
        }
        const bool is_matrix = read.name.ends_with(".weight");
        const SourceType type = any_type(cols);
        std::vector<uint8_t> bytes = stored_bytes(type, rows * cols, random_);
        std::vector<float> values(rows * cols);
        if (type == SourceType::f32) {
            for (float& value : values) value = random_.uniform(-2, 2);
            if (read.type == FileType::i8) put_odd_rows(values, cols);
            bytes = as_bytes(values.data(), values.size() * sizeof(float));
        }
        CHECK(rows_to_f32(type, bytes.data(), rows, cols, values.data()).ok());
        if (!is_matrix) {
            // A norm's or bias' number may be anything that is finite.
            store(read.name, type, bytes);
            source.converted.emplace_back(read.name, as_bytes(values.data(), values.size() * sizeof(float)));
            return;
        }
        const std::string name = read.name.substr(0, read.name.size() - 7);
        store(name, type, bytes);
        std::vector<uint8_t> placed(rows * read.row_bytes);
        std::vector<float> scales(rows);
        switch (read.type) {
            case FileType::f16: CHECK(rows_to_f16(values.data(), rows, cols, placed.data()).ok()); break;
            case FileType::bf16: CHECK(rows_to_bf16(values.data(), rows, cols, placed.data()).ok()); break;
            case FileType::i8:
                CHECK(rows_to_q8(values.data(), rows, cols, reinterpret_cast<int8_t*>(placed.data()), scales.data()).ok());
                break;
            default: placed = as_bytes(values.data(), values.size() * sizeof(float));
        }
        source.converted.emplace_back(read.name, placed);
        if (read.type == FileType::i8) source.converted.emplace_back(name + ".scale", as_bytes(scales.data(), rows * sizeof(float)));
    }

    static std::string base_of(const TensorRead& read) { return read.name.substr(0, read.name.rfind('.')); }

    // Columns that share a scale.
    size_t scales_of(const std::string& name) {
        for (const TensorRead& scale : reads_) {
            if (scale.name != name + ".scale") continue;
            for (const TensorRead& codes : reads_) {
                if (codes.name == name + ".codes") return static_cast<size_t>(codes.cols / scale.cols);
            }
        }
        std::abort();
    }

    SourceType ternary_type(size_t group) {
        if (group == 64) return SourceType::q2_0;
        if (group == 128) return random_.chance(2) ? SourceType::q2_0_g128 : SourceType::ptq1_0;
        return random_.chance(2) ? SourceType::tq1_0 : SourceType::tq2_0;
    }

    void add_groups(const TensorRead& read, SourceType type, const std::vector<uint8_t>& bytes, size_t row_bytes) {
        const size_t rows = static_cast<size_t>(read.rows), cols = static_cast<size_t>(read.cols);
        const std::string name = base_of(read);
        store(name, type, bytes);
        std::vector<uint8_t> bits(rows * row_bytes), scale(rows * cols / block_elements(type) * 2);
        CHECK((type == SourceType::q1_0 ? split_q1_0(bytes.data(), rows, cols, bits.data(), scale.data())
                                        : split_ternary(type, bytes.data(), rows, cols, bits.data(), scale.data()))
                  .ok());
        source.converted.emplace_back(read.name, bits);
        source.converted.emplace_back(name + ".scale", scale);
    }

    made::Random random_;
    bool floats_only_;
    std::vector<TensorRead> reads_;
};

bool same_weights(const Model& a, const Model& b) {
    // The embedding is the first of all tensors: what follows it in memory is all of them.
    return a.arena.used() == b.arena.used() && std::memcmp(a.embedding.stage[0].weights, b.embedding.stage[0].weights, a.arena.used()) == 0;
}

LinearKind linear(LinearKind::Form form, DType dtype = DType::f32, bool bias = false) {
    LinearKind kind;
    kind.form = form;
    kind.dtype = dtype;
    kind.bias = bias;
    return kind;
}

// Tables of more numbers than a piece has, rows that no block of anything divides, and positions.
Config large() {
    Config config = small_config();
    config.vocab_size = 1211;
    config.hidden_dim = 300;
    config.tied_head = false;
    config.norm = NormKind::layer;
    config.norm_bias = config.learned_positions = true;
    return config;
}

LinearKind ternary(int group) {
    LinearKind kind = linear(LinearKind::Form::ternary);
    kind.group = group;
    return kind;
}

Config ternary_wide() {
    Config config = small_config();
    config.dim = 256;
    config.hidden_dim = 512;
    config.n_heads = 8;
    config.vocab_size = 517;  // no whole number of blocks of rows
    return config;
}

struct Case {
    Config config;
    LinearKind linears, table;
};

std::vector<Case> cases() {
    using Form = LinearKind::Form;
    const LinearKind grouped = linear(Form::grouped), f32 = linear(Form::dense), f16 = linear(Form::dense, DType::f16);
    const LinearKind bf16 = linear(Form::dense, DType::bf16), q8 = linear(Form::dense, DType::q8);
    Config wide = large();
    wide.hidden_dim = 384;  // signs need whole groups
    return {{small_config(), q8, q8},
            {large(), linear(Form::dense, DType::q8, true), q8},
            {small_config(), f32, f16},
            {large(), f16, f32},
            {large(), bf16, bf16},
            {small_config(), grouped, grouped},
            {wide, grouped, q8},
            {small_config(), ternary(64), ternary(128)},
            {wide, ternary(128), f16},
            {ternary_wide(), ternary(256), ternary(256)}};
}

Status begin(const Case& c, const KernelSet& kernels, std::unique_ptr<Filling>* out) {
    return Filling::create(c.config, made::kinds_of(c.config, c.linears, c.table), Activations::int8, &kernels, out);
}

void makes_the_same_bytes() {
    uint64_t seed = 1;
    for (const char* isa : {"scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon", "neondot"}) {
        const char* why = nullptr;
        const KernelSet* kernels = choose_kernels(isa, &why);
        if (!kernels) continue;  // not here
        for (const Case& c : cases()) {
            for (const int threads : {1, 3}) {
                if (threads == 3 && check::few_variants()) continue;
                const Maker maker(made::tensors_of(c.config, made::kinds_of(c.config, c.linears, c.table)), seed % 4 == 0, seed);
                ++seed;
                const Source& source = maker.source;
                const Scratch first(source.files[0]), second(source.files[1]);
                std::unique_ptr<Filling> plain, native;
                std::shared_ptr<Model> expected, found;
                if (!CHECK(begin(c, *kernels, &plain).ok() && begin(c, *kernels, &native).ok())) continue;
                for (const auto& [name, bytes] : source.converted) CHECK(plain->write(name, bytes.data(), bytes.size()).ok());
                if (!CHECK(plain->finish(&expected).ok())) continue;
                Pool pool;
                pool.resize(threads);
                StoredOptions options;
                uint64_t told = 0, last = 0;
                options.paths = {first.path, second.path};
                options.progress = [&](uint64_t done) {
                    told = std::max(told, done);
                    last = done;
                };
                const Status status = native->convert(source.tensors, options, pool);
                if (!CHECK(status.ok())) std::printf("%s: %s\n", status.code, status.message.c_str());
                if (!CHECK(native->finish(&found).ok())) continue;
                CHECK(same_weights(*expected, *found));
                uint64_t bytes = 0;
                for (const auto& [_, one] : source.converted) bytes += one.size();
                CHECK(told == bytes && last > 0);
            }
        }
    }
}

const char* code_of(const Status& status) { return status.ok() ? "" : status.code; }
bool has_code(const Status& status, const char* code) { return std::string(code_of(status)) == code; }

void refuses_what_is_wrong() {
    const KernelSet& kernels = *choose_kernels(std::getenv("ONEBIT_ISA"), nullptr);
    const Case c = cases()[0];
    const Maker maker(made::tensors_of(c.config, made::kinds_of(c.config, c.linears, c.table)), true, 5);
    const Source& good = maker.source;
    Pool pool;
    pool.resize(2);
    const auto attempt = [&](const std::vector<StoredTensor>& tensors, const std::vector<uint8_t>& file, Status* status,
                             const std::atomic<bool>* cancel = nullptr) {
        const Scratch first(file), second(good.files[1]);
        std::unique_ptr<Filling> filling;
        CHECK(begin(c, kernels, &filling).ok());
        StoredOptions options;
        options.paths = {first.path, second.path};
        options.cancel = cancel;
        *status = filling->convert(tensors, options, pool);
        std::shared_ptr<Model> model;
        return filling->finish(&model);
    };
    Status status;
    const auto change = [&](auto&& action) {
        std::vector<StoredTensor> tensors = good.tensors;
        action(tensors);
        attempt(tensors, good.files[0], &status);
        return status;
    };
    CHECK(attempt(good.tensors, good.files[0], &status).ok() && status.ok());
    CHECK(has_code(change([](auto& all) { all[0].name = "nothing"; }), "ERR_TENSOR_TABLE"));
    CHECK(has_code(change([](auto& all) { all[0].name = "tok_embeddings.weight"; }), "ERR_TENSOR_TABLE"));  // q8 needs its scales
    CHECK(has_code(change([](auto& all) { all.push_back(all[0]); }), "ERR_TENSOR_TABLE"));
    CHECK(has_code(change([](auto& all) { all[0].file = 2; }), "ERR_TENSOR_TABLE"));
    CHECK(has_code(change([](auto& all) { all[0].offset = uint64_t{1} << 50; }), "ERR_TRUNCATED"));
    CHECK(has_code(change([](auto& all) { all[1].name = "norm", all.back().name = "norm"; }), "ERR_TENSOR_TABLE"));
    CHECK(has_code(change([](auto& all) { all[0].type = SourceType::q6_k; }), "ERR_TENSOR_TABLE"));  // 128 columns are half a block
    std::vector<StoredTensor> fewer = good.tensors;
    fewer.pop_back();
    CHECK(has_code(attempt(fewer, good.files[0], &status), "ERR_TENSOR_TABLE") && status.ok());
    std::vector<uint8_t> cut = good.files[0];
    cut.resize(cut.size() / 2);
    attempt(good.tensors, cut, &status);
    CHECK(has_code(status, "ERR_TRUNCATED"));
    const std::atomic<bool> stop{true};
    attempt(good.tensors, good.files[0], &status, &stop);
    CHECK(has_code(status, "ERR_ABORTED"));
    StoredOptions nowhere;
    nowhere.paths = {"/nowhere/at/all", "/nowhere/at/all"};
    std::unique_ptr<Filling> filling;
    CHECK(begin(c, kernels, &filling).ok());
    CHECK(has_code(filling->convert(good.tensors, nowhere, pool), "ERR_READ"));
}

// A NaN or an infinity in any form is named, with its row of the tensor.
void names_what_is_no_number() {
    const KernelSet& kernels = *choose_kernels(std::getenv("ONEBIT_ISA"), nullptr);
    for (const Case& c : cases()) {
        if (c.table.form != LinearKind::Form::dense) continue;
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
            const size_t rows = static_cast<size_t>(c.config.vocab_size), cols = static_cast<size_t>(c.config.dim);
            std::vector<float> values(rows * cols, 0.25f);
            values[(rows - 1) * cols + 7] = bad;
            const Scratch file(as_bytes(values.data(), values.size() * sizeof(float)));
            std::unique_ptr<Filling> filling;
            CHECK(begin(c, kernels, &filling).ok());
            Pool pool;
            StoredOptions options;
            options.paths = {file.path};
            const Status status = filling->convert({{"tok_embeddings", "their embedding", SourceType::f32, 0, 0}}, options, pool);
            CHECK(has_code(status, "ERR_NOT_FINITE"));
            CHECK(status.message.find("their embedding") != std::string::npos && status.message.find("column 7") != std::string::npos);
        }
    }
}

}  // namespace

int main() {
    makes_the_same_bytes();
    refuses_what_is_wrong();
    names_what_is_no_number();
    return check::summary();
}
