// Models that come piece by piece: the same logits as from a file, whatever the pieces; and pieces that are wrong.
#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "check.h"
#include "made_logits.h"
#include "made_model.h"
#include "model/fill.h"

using namespace onebit;
using made::logits_of;
using made::small_config;

namespace {

// The tensors in the order of the file, in pieces of random length.
Status fill(const made::ModelFile& file, const KernelSet& kernels, made::Random& random, std::shared_ptr<Model>* out) {
    std::unique_ptr<Filling> filling;
    if (Status status = Filling::create(file.config, file.contents.kinds, Activations::int8, &kernels, &filling); !status.ok()) return status;
    for (const TensorSlot& slot : file.contents.tensors) {
        const std::vector<uint8_t>& bytes = file.tensors.at(slot.name);
        const int most = random.chance(3) ? 16 : static_cast<int>(bytes.size());
        for (size_t at = 0; at < bytes.size();) {
            const size_t n = std::min(bytes.size() - at, static_cast<size_t>(random.between(random.chance(8) ? 0 : 1, most)));
            // A copy of just this length, so that reading beyond it is seen.
            const std::vector<uint8_t> piece(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
            if (Status status = filling->write(slot.name, piece.data(), n); !status.ok()) return status;
            at += n;
        }
    }
    return filling->finish(out);
}

LinearKind linear(LinearKind::Form form, DType dtype = DType::f32) {
    LinearKind kind;
    kind.form = form;
    kind.dtype = dtype;
    return kind;
}

void gives_the_same_model(Pool& pool) {
    const LinearKind sign = linear(LinearKind::Form::sign), grouped = linear(LinearKind::Form::grouped);
    const LinearKind q8 = linear(LinearKind::Form::dense, DType::q8);
    LinearKind ternary = linear(LinearKind::Form::ternary), by_row = ternary;
    ternary.group = 64;
    LinearKind biased = q8;
    biased.bias = true;
    const LinearKind half = linear(LinearKind::Form::dense, DType::f16), whole = linear(LinearKind::Form::dense, DType::f32);
    Config odd = small_config();
    odd.hidden_dim = 200;  // rows that are no multiple of a block
    odd.vocab_size = 77;
    odd.tied_head = false;
    odd.norm = NormKind::layer;
    odd.norm_bias = odd.parallel_residual = true;
    made::Random random{11};
    int seed = 0;
    for (const char* isa : {"scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon", "neondot"}) {
        const char* why = nullptr;
        const KernelSet* kernels = choose_kernels(isa, &why);
        if (!kernels) continue;  // not here
        for (const auto& [config, kind, table] :
             {std::tuple(small_config(), sign, half), std::tuple(small_config(), grouped, grouped),
              std::tuple(small_config(), biased, q8), std::tuple(small_config(), ternary, ternary),
              std::tuple(odd, by_row, by_row), std::tuple(odd, sign, whole)}) {
            const made::ModelFile file(config, made::kinds_of(config, kind, table), static_cast<uint64_t>(++seed));
            std::shared_ptr<Model> read, filled;
            if (!CHECK(file.load(*kernels, Activations::int8, pool, &read).ok())) continue;
            if (!CHECK(fill(file, *kernels, random, &filled).ok())) continue;
            CHECK(read->weight_bytes() == filled->weight_bytes());
            CHECK(logits_of(read, pool) == logits_of(filled, pool));
        }
    }
}

const char* code_of(const Status& status) { return status.ok() ? "" : status.code; }

void refuses_what_is_wrong() {
    const KernelSet& kernels = *choose_kernels(std::getenv("ONEBIT_ISA"), nullptr);
    const Config config = small_config();
    const made::ModelFile file(config, made::kinds_of(config, linear(LinearKind::Form::sign), linear(LinearKind::Form::dense)), 1);
    const auto begin = [&] {
        std::unique_ptr<Filling> filling;
        CHECK(Filling::create(file.config, file.contents.kinds, Activations::int8, &kernels, &filling).ok());
        return filling;
    };
    const TensorSlot &first = file.contents.tensors[0], &second = file.contents.tensors[1];
    const std::vector<uint8_t> bytes = file.tensors.at(first.name), more(bytes.size() + 1), other = file.tensors.at(second.name);
    auto filling = begin();
    CHECK(std::string(code_of(filling->write("none", bytes.data(), 1))) == "ERR_TENSOR_TABLE");
    filling = begin();
    CHECK(std::string(code_of(filling->write(first.name, more.data(), more.size()))) == "ERR_TENSOR_SIZE");
    filling = begin();
    CHECK(filling->write(first.name, bytes.data(), 8).ok());
    CHECK(std::string(code_of(filling->write(first.name, more.data(), bytes.size() - 7))) == "ERR_TENSOR_SIZE");
    CHECK(std::string(code_of(filling->write(second.name, other.data(), 4))) == "ERR_TENSOR_TABLE");
    std::shared_ptr<Model> model;
    CHECK(std::string(code_of(filling->finish(&model))) == "ERR_TENSOR_TABLE");
    CHECK(!model);
    filling = begin();
    CHECK(filling->write(first.name, bytes.data(), bytes.size()).ok());
    CHECK(filling->write(second.name, other.data(), other.size()).ok());
    CHECK(std::string(code_of(filling->write(first.name, bytes.data(), 1))) == "ERR_TENSOR_TABLE");
}

}  // namespace

int main() {
    Pool pool;
    gives_the_same_model(pool);
    refuses_what_is_wrong();
    return check::summary();
}
