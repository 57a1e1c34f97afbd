// Tensors of more than a megabyte, which threads share piece by piece: the model that one thread makes tensor by tensor, and
// a byte that is wrong is found in whichever piece it lies. ONEBIT_VARIANTS=few: with the chosen set only.
#include <cstdlib>
#include <fstream>

#include "check.h"
#include "each_set.h"
#include "made_logits.h"
#include "made_model.h"
#include "model/fill.h"
#include "system/checksum.h"

using namespace onebit;

namespace {

constexpr size_t kLarge = 1 << 20;

// Every form of matrix is there with more than a piece of it, and blocks of rows that end within the last one.
struct Large {
    Config config = made::small_config();
    std::vector<NamedKind> kinds;

    Large() {
        config.dim = 1024;
        config.hidden_dim = 9088;
        config.vocab_size = 3001;
        config.n_layers = 1;
        config.n_heads = 8;
        config.n_kv_heads = 8;
        config.head_dim = 128;
        LinearKind sign, dense, grouped, ternary, table;
        sign.form = LinearKind::Form::sign;
        dense.dtype = DType::f16;
        grouped.form = LinearKind::Form::grouped;
        ternary.form = LinearKind::Form::ternary;
        ternary.group = 64;
        table.dtype = DType::q8;
        kinds = made::kinds_of(config, sign, table);
        made::kind_of(kinds, "layers.0.wq") = dense;
        made::kind_of(kinds, "layers.0.w2") = grouped;
        made::kind_of(kinds, "layers.0.w3") = ternary;
    }
};

std::shared_ptr<Model> filled(const made::ModelFile& file, const KernelSet& kernels) {
    std::unique_ptr<Filling> filling;
    CHECK(Filling::create(file.config, file.contents.kinds, Activations::int8, &kernels, &filling).ok());
    for (const auto& [name, bytes] : file.tensors) CHECK(filling->write(name, bytes.data(), bytes.size()).ok());
    std::shared_ptr<Model> model;
    CHECK(filling->finish(&model).ok());
    return model;
}

void pieces_make_the_same_model(const made::ModelFile& file, const KernelSet& kernels, Pool& pool) {
    const std::vector<float> expected = made::logits_of(filled(file, kernels), pool);
    for (const int threads : {1, 2, 5}) {
        pool.resize(threads);
        std::shared_ptr<Model> model;
        if (CHECK(file.load(kernels, Activations::int8, pool, &model).ok())) CHECK(made::logits_of(model, pool) == expected);
    }
}

void wrong_bytes_are_found(const made::ModelFile& file, const KernelSet& kernels, Pool& pool) {
    std::fstream bytes(file.path, std::ios::binary | std::ios::in | std::ios::out);
    const auto change = [&](uint64_t at) {
        bytes.seekg(static_cast<std::streamoff>(at));
        const int before = bytes.get();
        bytes.seekp(static_cast<std::streamoff>(at));
        bytes.put(static_cast<char>(before ^ 0x10)).flush();
    };
    int large = 0;
    for (const TensorSlot& slot : file.contents.tensors) {
        // of these every byte is a number that may be there
        if (slot.bytes <= kLarge || (slot.type != FileType::i8 && !slot.name.ends_with(".sign"))) continue;
        ++large;
        for (const uint64_t at : {uint64_t{0}, slot.bytes / 2, slot.bytes - 1}) {
            change(slot.offset + at);
            pool.resize(2);
            std::shared_ptr<Model> model;
            const Status status = file.load(kernels, Activations::int8, pool, &model);
            CHECK(!status.ok() && std::string(status.code) == "ERR_CHECKSUM" && status.message.find(slot.name) != std::string::npos);
            CHECK(!model);
            change(slot.offset + at);
        }
    }
    CHECK(large >= 3);
}

void checksums_join(const KernelSet& kernels) {
    const auto crc_of = [&](const std::vector<uint8_t>& bytes) { return kernels.crc32c(0, bytes.data(), bytes.size()); };
    CHECK(JoinedCrc32c().value() == crc_of({}));
    made::Random random{3};
    for (int round = 0; round < 300; ++round) {
        JoinedCrc32c joined;
        std::vector<uint8_t> all;
        const int same = random.between(0, 300);
        for (int part = random.between(1, 6); part > 0; --part) {
            std::vector<uint8_t> bytes(static_cast<size_t>(random.chance(2) ? same : random.between(0, 3000)));
            for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
            joined.append(crc_of(bytes), bytes.size());
            all.insert(all.end(), bytes.begin(), bytes.end());
        }
        CHECK(joined.value() == crc_of(all));
    }
}

}  // namespace

int main() {
    const Large large;
    const made::ModelFile file(large.config, large.kinds, 5);
    Pool pool;
    const KernelSet& chosen = *choose_kernels("", nullptr);
    checksums_join(chosen);
    check::each_set([&](const KernelSet& kernels) {
        if (!check::few_variants() || &kernels == &chosen) pieces_make_the_same_model(file, kernels, pool);
    });
    wrong_bytes_are_found(file, chosen, pool);
    return check::summary();
}
