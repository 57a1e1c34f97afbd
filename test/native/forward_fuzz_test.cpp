// The engine against a plain forward pass (reference.h), with random shapes, kinds, features, threads, chunks, sessions,
// rewinds, forks and copies: every logit and hidden state must be the same bits. Whatever the engine chooses by size has two
// sides, and some case lies on each.
//
// ONEBIT_FUZZ: cases; without it they go on for ONEBIT_FUZZ_MINUTES (1). ONEBIT_FUZZ_SEED: of the first case; each prints its
// own when it fails, and ONEBIT_FUZZ=1 with it runs that case alone. ONEBIT_VARIANTS=few: small ones only, for slow machines.
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "check.h"
#include "made_model.h"
#include "plain_tile_set.h"
#include "reference.h"
#include "run/forward.h"

using namespace onebit;
using made::Random;

namespace {

// Multiply-adds of a case (weights times tokens of the sequences) and weights: at most, in most cases and in every fiftieth.
struct Limits {
    double work, weights;
};
constexpr Limits kSmall{4e7, 1e6}, kUsual{6e7, 2e6}, kLarge{1e10, 6e7};

struct Case {
    Config config;
    std::vector<NamedKind> kinds;
    Activations activations = Activations::int8;
    DType kv = DType::f16;
    int threads = 1;
    int tokens = 1;  // of each of two sequences
    const KernelSet* kernels = nullptr;

    double weights() const {
        const Config& c = config;
        double rows = c.vocab_size;
        for (const NamedKind& named : kinds) {
            const auto [r, cols] = made::shape_of(c, named.name.substr(named.name.rfind('.') + 1));
            rows += static_cast<double>(r) * cols / c.dim;
        }
        return rows * c.dim;
    }
    // Multiply-adds that are no weight's.
    double attention() const {
        const Config& c = config;
        const auto deltas = static_cast<double>(c.delta_layers.size());
        return (c.n_layers - deltas) * c.q_dim() * tokens + 4 * deltas * c.delta_inner() * c.delta_k_dim;
    }
};

template <class T, size_t N>
T one_of(Random& random, const T (&choices)[N]) {
    return choices[random.next() % N];
}

// Columns that a kind needs a multiple of.
int multiple_of(const LinearKind& kind) {
    switch (kind.form) {
        case LinearKind::Form::dense: return 1;
        case LinearKind::Form::sign: return 8;
        case LinearKind::Form::grouped: return 128;
        case LinearKind::Form::ternary: return kind.group > 0 ? kind.group : 4;
    }
    return 1;
}

LinearKind ternary_kind(Random& random) {
    LinearKind kind;
    kind.form = LinearKind::Form::ternary;
    kind.group = one_of(random, {0, 64, 128, 256});
    return kind;
}

LinearKind some_kind(Random& random, int cols, int rows) {
    LinearKind kind;
    const int form = random.between(0, 4);
    const LinearKind ternary = ternary_kind(random);
    if (form == 1 && cols % 8 == 0) {
        kind.form = LinearKind::Form::sign;
        kind.layernorm = random.chance(2);
    } else if (form == 2 && cols % 8 == 0) {
        kind.form = LinearKind::Form::sign;
        kind.rank = 8 * random.between(1, std::max(1, std::min(rows, cols) / 8));
        kind.mid_scale = random.chance(2);
        kind.layernorm = random.chance(3);
    } else if (form == 3 && cols % 128 == 0) {
        kind.form = LinearKind::Form::grouped;
    } else if (form == 4 && cols % multiple_of(ternary) == 0) {
        kind = ternary;
    } else {
        kind.dtype = one_of(random, {DType::f32, DType::f16, DType::bf16, DType::q8, DType::q8});
    }
    kind.bias = random.chance(5);
    if (kind.form == LinearKind::Form::sign) {
        kind.column = random.chance(3);
        kind.half = random.chance(3);
    }
    return kind;
}

LinearKind table_kind(Random& random, int cols) {
    LinearKind kind;
    const LinearKind ternary = ternary_kind(random);
    if (cols % 128 == 0 && random.chance(4)) kind.form = LinearKind::Form::grouped;
    else if (cols % multiple_of(ternary) == 0 && random.chance(4)) kind = ternary;
    else kind.dtype = one_of(random, {DType::f32, DType::f16, DType::bf16, DType::q8, DType::q8});
    return kind;
}

// What stands in front of a linear. `common`: of most of a model's, as far as the columns allow.
void choose_front(Random& random, const LinearKind& common, int cols, LinearKind* kind) {
    kind->norm_in = random.chance(16) ? !common.norm_in : common.norm_in;
    const int wanted = random.chance(8) ? 1 << random.between(0, 13) : common.rotation, largest = cols & -cols;
    kind->rotation = std::min(wanted, largest) >= 2 ? std::min(wanted, largest) : 0;
    kind->rotation_signs = random.chance(8) ? !common.rotation_signs : common.rotation_signs;
}

int some_width(Random& random, int most) {
    const int width = random.chance(4) ? random.between(1, most) : random.between(1, std::min(most, 640));
    switch (random.between(0, 3)) {
        case 0: return width;
        case 1: return (width + 7) / 8 * 8;
        default: return (width + 127) / 128 * 128;
    }
}

void choose_features(Random& random, Config& c) {
    c.qk_norm = random.chance(4);
    c.window = random.chance(4) ? random.between(1, 300) : 0;
    c.output_gate = random.chance(8);
    c.attention_inner_norm = random.chance(8);
    c.ffn_inner_norm = random.chance(8);
    c.parallel_residual = random.chance(6);
    c.gated = !random.chance(6);
    if (random.chance(6)) c.norm = NormKind::layer;
    c.norm_bias = random.chance(8);
    if (random.chance(3)) c.activation = one_of(random, {Activation::relu, Activation::relu2, Activation::gelu, Activation::gelu_tanh});
    if (random.chance(8)) {
        c.learned_positions = true;
        c.position_offset = random.between(0, 3);
    } else {
        if (random.chance(6)) c.rope_dims = 2 * random.between(1, c.head_dim / 2);
        c.rope.interleaved = random.chance(2);
    }
}

// Some of its layers, or all, mix by the delta rule: heads of any size, and of sizes that fill vectors.
void choose_delta(Random& random, Config& c) {
    const auto some_dim = [&] { return random.chance(2) ? one_of(random, {8, 16, 32, 48, 64, 128}) : random.between(1, 90); };
    c.n_layers = random.between(1, 4);
    for (int l = 0; l < c.n_layers; ++l) {
        if (!random.chance(3)) c.delta_layers.push_back(l);
    }
    if (c.delta_layers.empty()) return;
    c.delta_k_heads = random.between(1, 5);
    c.delta_v_heads = c.delta_k_heads * random.between(1, 4);
    c.delta_k_dim = some_dim();
    c.delta_v_dim = random.chance(2) ? c.delta_k_dim : some_dim();
    c.delta_conv = random.chance(2) ? 4 : random.between(1, 7);
    c.delta_tiled = random.chance(2);
}

Config some_config(Random& random) {
    Config c;
    c.head_dim = random.chance(3) ? 2 * random.between(1, 128) : one_of(random, {32, 64, 80, 96, 128, 256});
    const int group = random.chance(2) ? random.between(1, 32) : one_of(random, {1, 3, 4, 5, 8, 12, 13, 16, 24, 25, 32});
    c.n_kv_heads = random.between(1, random.chance(4) ? 6 : 2);
    c.n_heads = group * c.n_kv_heads;
    c.dim = some_width(random, 4608);
    c.hidden_dim = some_width(random, 4608);
    c.vocab_size = random.chance(3) ? random.between(1, 2500) : random.between(2, 300);
    c.n_layers = random.chance(3) ? 2 : 1;
    c.context_length = 1024;
    c.tied_head = random.chance(2);
    if (random.chance(3)) choose_delta(random, c);
    choose_features(random, c);
    return c;
}

void choose_kinds(Random& random, Case& test) {
    const Config& c = test.config;
    test.kinds = made::kinds_of(c, LinearKind{}, table_kind(random, c.dim));
    const bool alike = !random.chance(3);  // as real models are
    LinearKind common;
    for (int i = 0; i < 3; ++i) common = some_kind(random, 256, 64);
    const bool fronts = random.chance(3);
    LinearKind front;
    front.norm_in = random.chance(4);
    front.rotation = random.chance(4) ? 0 : 1 << random.between(1, 13);
    front.rotation_signs = !random.chance(3);
    for (NamedKind& named : test.kinds) {
        const std::string role = named.name.substr(named.name.rfind('.') + 1);
        if (role == "tok_embeddings" || role == "output") {
            if (fronts) choose_front(random, front, c.dim, &named.kind);
            named.kind.norm_in = false;
            continue;
        }
        const auto [rows, cols] = made::shape_of(c, role);
        named.kind = alike && cols % multiple_of(common) == 0 ? common : some_kind(random, cols, rows);
        if (fronts) choose_front(random, front, cols, &named.kind);
    }
}

const std::vector<const KernelSet*>& sets() {
    static const std::vector<const KernelSet*> usable = [] {
        std::vector<const KernelSet*> found;
        int count = 0;
        const IsaEntry* table = isa_table(&count);
        for (int i = 0; i < count; ++i) {
            const char* why = nullptr;
            if (const KernelSet* kernels = choose_kernels(table[i].name, &why)) found.push_back(kernels);
        }
        if (const KernelSet* kernels = check::plain_tile_set()) found.push_back(kernels);
        return found;
    }();
    return usable;
}

// Anything between the usual and the most, as many of each order of magnitude.
Limits up_to(const Limits& most, Random& random) {
    const double share = random.uniform(0, 1);
    return {kUsual.work * std::pow(most.work / kUsual.work, share), kUsual.weights * std::pow(most.weights / kUsual.weights, share)};
}

Case some_case(Random& random, const Limits& limits) {
    Case test;
    do {
        test.config = some_config(random);
        test.kinds = made::kinds_of(test.config, LinearKind{}, LinearKind{});
    } while (test.config.wq_rows() > kMaxDim || test.weights() > limits.weights || test.config.q_dim() > 16384);
    choose_kinds(random, test);
    test.activations = one_of(random, {Activations::int8, Activations::int8, Activations::f32, Activations::int4});
    test.kv = one_of(random, {DType::f16, DType::f16, DType::f32, DType::q8});
    test.threads = random.chance(3) ? random.between(1, 16) : one_of(random, {1, 2, 2, 3, 4, 8});
    // The scalar set is slow, so it gets a smaller share.
    const size_t others = sets().size() - 1;
    test.kernels = random.chance(4) || others == 0 ? sets().front() : sets()[1 + random.next() % others];
    if (const char* forced = std::getenv("ONEBIT_ISA")) test.kernels = choose_kernels(forced, nullptr);
    const double most = limits.work / (test.kernels == sets().front() ? 8 : 1);
    const int affordable = static_cast<int>(std::min(256.0, most / (2 * test.weights())));
    test.tokens = random.chance(3) ? std::max(1, affordable) : random.between(1, std::max(1, affordable));
    while (test.tokens > 1 && test.attention() * test.tokens > most / 4) test.tokens /= 2;
    return test;
}

// A session of the engine with the sequence it is on.
struct Live {
    std::unique_ptr<Session> session;
    int sequence;
};

class Run {
public:
    Run(const Case& test, uint64_t seed) : test_(test), random_{seed}, file_(test.config, test.kinds, seed), workspace_(seed % 2 == 0) {}

    bool run() {
        const reference::Model plain(test_.config, test_.kinds, file_.tensors, test_.activations, test_.kv);
        for (int s = 0; s < 2; ++s) {
            for (int t = 0; t < test_.tokens; ++t) {
                ids_[s].push_back(static_cast<int32_t>(random_.next() % static_cast<uint64_t>(test_.config.vocab_size)));
            }
            hidden_[s] = plain.hidden(ids_[s]);
            for (const reference::Floats& row : hidden_[s]) expected_[s].push_back(plain.logits(row));
        }
        pool_.resize(test_.threads);
        if (!good(file_.load(*test_.kernels, test_.activations, pool_, &model_))) return false;
        for (int s = 0; s < 2; ++s) add_session(s);
        if (random_.chance(2)) model_->checkpoints->set_limit(random_.next() % 4 * live_.front().session->state_bytes());
        while (random_.chance(3) && live_.size() < 8) add_session(random_.between(0, 1));
        // Until every session has reached the end of its sequence; some go back or are forked on the way.
        for (int detours = 3; ok_;) {
            if (!step()) break;
            if (detours > 0 && random_.chance(3)) --detours, detour();
        }
        return ok_ && compared_ > 0;  // the last tokens' logits are always wanted
    }

private:
    bool good(const Status& status) {
        if (!status.ok()) std::printf("  %s: %s\n", status.code, status.message.c_str());
        return ok_ = ok_ && status.ok();
    }

    void add_session(int sequence) {
        std::unique_ptr<Session> made;
        if (!good(Session::create(model_, test_.tokens + random_.between(0, 3), test_.kv, &made))) return;
        live_.push_back({std::move(made), sequence});
    }

    void detour() {
        Live& one = live_[random_.next() % live_.size()];
        const int length = random_.between(0, one.session->length());
        if (random_.chance(2)) return go_back(*one.session, length);
        if (random_.chance(2)) one.session->mark();
        const int sequence = one.sequence;
        const Session& from = *one.session;
        std::unique_ptr<Session> made;
        if (!good(Session::create(model_, test_.tokens, test_.kv, &made))) return;
        if (random_.chance(2)) {
            if (!good(made->copy_from(from, length))) return;
        } else {  // by way of a file, say
            std::vector<unsigned char> bytes(from.chunk_bytes());
            for (int i = 0; i < from.used_chunks(); ++i) {
                from.read_chunk(i, bytes.data());
                if (!good(made->write_chunk(i, bytes.data()))) return;
            }
            const std::vector<int> states = one.session->hold_states(random_.between(0, 3));
            for (size_t i = 0; i < states.size(); ++i) {
                bytes.resize(from.state_bytes());
                from.read_state(static_cast<int>(i), bytes.data());
                if (!good(made->write_state(states[i], bytes.data()))) return;
            }
            if (!good(made->restored(from.length()))) return;
        }
        live_.push_back({std::move(made), sequence});
    }

    // Some tokens of some sessions. False: nothing was left to do.
    bool step() {
        std::vector<TokenInput> inputs;
        std::vector<std::pair<int, int>> places;  // sequence, position
        const int budget = random_.chance(3) ? kMaxStepTokens : random_.between(1, 64);
        bool left = false;
        for (Live& one : live_) {
            const int done = one.session->length(), rest = test_.tokens - done;
            if (rest == 0) continue;
            left = true;
            const int room = std::min(rest, budget - static_cast<int>(inputs.size()));
            if (room <= 0 || (live_.size() > 1 && random_.chance(4))) continue;
            const int n = random_.chance(3) ? 1 : random_.between(1, room);
            for (int i = 0; i < n; ++i) {
                inputs.push_back({one.session.get(), ids_[one.sequence][static_cast<size_t>(done + i)],
                                  done + i + 1 == test_.tokens || !random_.chance(4), random_.chance(3), random_.chance(3)});
                places.emplace_back(one.sequence, done + i);
            }
        }
        if (inputs.empty()) return left;
        // Whoever is given a row must want it.
        const auto sink = [&](const char* what, const std::vector<reference::Floats>(&expected)[2], bool TokenInput::* wanted) {
            return [&places, &inputs, &expected, this, what, wanted](int i, const float* row) {
                const auto [sequence, position] = places[static_cast<size_t>(i)];
                compare(what, expected[sequence][static_cast<size_t>(position)], row, sequence, position);
                ok_ = ok_ && inputs[static_cast<size_t>(i)].*wanted;
            };
        };
        if (random_.chance(4)) {
            if (!given_up(inputs)) return false;
            Session& session = *inputs.front().session;
            if (random_.chance(2)) {  // and then it goes back instead, to a state that the step did not touch
                go_back(session, random_.between(std::max(0, session.length() - 3), session.length()));
                return ok_;
            }
        }
        return good(forward(*model_, pool_, workspace_, inputs.data(), static_cast<int>(inputs.size()),
                            sink("logit", expected_, &TokenInput::want_logits), nullptr,
                            sink("hidden", hidden_, &TokenInput::want_hidden))) &&
               ok_;
    }

    // As far as it can: keys and values anywhere, states to where they are known.
    void go_back(Session& session, int length) {
        const int reachable = session.reachable(length);
        session.rewind(length);
        ok_ = ok_ && session.length() == reachable && reachable <= length;
        ok_ = ok_ && (session.state_bytes() > 0 || reachable == length);
    }

    // A step that ends before some layer leaves everything as it was, so that the same one gives the right logits then.
    bool given_up(const std::vector<TokenInput>& inputs) {
        const int length = inputs.front().session->length(), last = random_.between(0, test_.config.n_layers);
        int layers = 0;
        const auto nobody = [](int, const float*) {};
        const Status status = forward(*model_, pool_, workspace_, inputs.data(), static_cast<int>(inputs.size()), nobody,
                                      [&] { return layers++ == last; }, nobody);
        return ok_ = ok_ && !status.ok() && std::strcmp(status.code, kGivenUp) == 0 && inputs.front().session->length() == length;
    }

    void compare(const char* what, const reference::Floats& expected, const float* row, int sequence, int position) {
        ++compared_;
        if (std::memcmp(expected.data(), row, expected.size() * sizeof(float)) == 0) return;
        size_t i = 0;
        while (expected[i] == row[i]) ++i;
        if (ok_) {
            std::printf("  sequence %d, position %d: %s %zu is %.9g, should be %.9g\n", sequence, position, what, i,
                        static_cast<double>(row[i]), static_cast<double>(expected[i]));
        }
        ok_ = false;
    }

    const Case& test_;
    Random random_;
    made::ModelFile file_;
    Pool pool_;
    Workspace workspace_;
    std::shared_ptr<Model> model_;
    std::vector<Live> live_;
    std::vector<int32_t> ids_[2];
    std::vector<reference::Floats> expected_[2], hidden_[2];  // of sequence and position
    size_t compared_ = 0;
    bool ok_ = true;
};

void describe(const Case& test) {
    const Config& c = test.config;
    std::printf("  %s, %d threads, %d tokens; width %d, feed-forward %d, %d heads on %d of size %d, vocabulary %d, %d layers\n",
                test.kernels->name, test.threads, test.tokens, c.dim, c.hidden_dim, c.n_heads, c.n_kv_heads, c.head_dim, c.vocab_size,
                c.n_layers);
    std::printf("  activations %d, cache %d, qk_norm %d, window %d, gate %d, inner %d %d, gated %d, norm %d %d, act %d, learned %d, rope %d %d, parallel %d\n",
                static_cast<int>(test.activations), static_cast<int>(test.kv), c.qk_norm, c.window, c.output_gate,
                c.attention_inner_norm, c.ffn_inner_norm, c.gated, static_cast<int>(c.norm), c.norm_bias,
                static_cast<int>(c.activation), c.learned_positions, c.rope_dims, c.rope.interleaved, c.parallel_residual);
    std::printf("  delta: %zu layers, %d key and %d value heads of %d x %d, convolution %d, tiled %d\n", c.delta_layers.size(), c.delta_k_heads,
                c.delta_v_heads, c.delta_k_dim, c.delta_v_dim, c.delta_conv, c.delta_tiled);
    for (const NamedKind& named : test.kinds) {
        const LinearKind& k = named.kind;
        std::printf("  %s: form %d dtype %d group %d rank %d mid %d ln %d column %d half %d bias %d norm %d rotation %d %d\n", named.name.c_str(),
                    static_cast<int>(k.form), static_cast<int>(k.dtype), k.group, k.rank, k.mid_scale, k.layernorm, k.column, k.half, k.bias, k.norm_in,
                    k.rotation, k.rotation_signs);
    }
}

uint64_t number_from(const char* name, uint64_t otherwise) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

}  // namespace

int main() {
    using Clock = std::chrono::steady_clock;
    const uint64_t now = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
    const uint64_t first = number_from("ONEBIT_FUZZ_SEED", now % 1'000'000'000);
    const uint64_t most = number_from("ONEBIT_FUZZ", UINT64_MAX);
    const auto end = Clock::now() + std::chrono::minutes(number_from("ONEBIT_FUZZ_MINUTES", 1));
    std::printf("from seed %llu on\n", static_cast<unsigned long long>(first));
    const bool few = check::few_variants();
    uint64_t cases = 0;
    for (; cases < most && check::failed < 10 && (most != UINT64_MAX || Clock::now() < end); ++cases) {
        const uint64_t seed = first + cases;
        Random random{seed};
        const Case test = some_case(random, few ? kSmall : seed % 50 == 0 ? up_to(kLarge, random) : kUsual);
        if (CHECK(Run(test, seed).run())) continue;
        std::printf("  ONEBIT_FUZZ=1 ONEBIT_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed));
        describe(test);
        std::fflush(stdout);
    }
    std::printf("%llu cases\n", static_cast<unsigned long long>(cases));
    return check::summary();
}
