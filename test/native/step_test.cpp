// Steps of several items in chunks: hidden states, last or added up, are those of a plain forward pass whatever the chunks;
// and a session that was copied in chunks of bytes goes on as the one it came from.
#include "run/step.h"

#include <cstring>
#include <string>

#include "check.h"
#include "made_model.h"
#include "reference.h"

using namespace onebit;

namespace {

constexpr int kTokens = 600;  // chunks of the cache hold 256

struct Made {
    explicit Made(DType kv, Activations activations) : file(config(), made::kinds_of(config(), kind(), table()), 7) {
        plain = std::make_unique<reference::Model>(file.config, file.contents.kinds, file.tensors, activations, kv);
        engine.threads = 2;
        pool.resize(2);
        CHECK(file.load(*choose_kernels(nullptr, nullptr), activations, pool, &engine.model).ok());
        made::Random random{11};
        for (int i = 0; i < kTokens; ++i) ids.push_back(random.between(0, file.config.vocab_size - 1));
    }

    static Config config() {
        Config c;
        c.vocab_size = 96;
        c.dim = 48;
        c.hidden_dim = 64;
        c.n_layers = 2;
        c.n_heads = 2;
        c.n_kv_heads = 1;
        c.head_dim = 24;
        c.context_length = 1024;
        return c;
    }
    static LinearKind kind() { return {.form = LinearKind::Form::sign}; }
    static LinearKind table() { return {.dtype = DType::q8}; }

    std::unique_ptr<Session> session(DType kv, int capacity = kTokens) const {
        std::unique_ptr<Session> made;
        CHECK(Session::create(engine.model, capacity, kv, &made).ok());
        return made;
    }

    // Tokens [from, to) as one item of a step of their own.
    StepItem run(Session& session, int from, int to, WantedLogits logits, int chunk = 0) {
        StepItem item;
        item.session = &session;
        item.tokens.assign(ids.begin() + from, ids.begin() + to);
        item.logits = logits;
        StepRequest request{{&item}, chunk};
        CHECK(run_step(engine, pool, request).ok());
        return item;
    }

    made::ModelFile file;
    std::unique_ptr<reference::Model> plain;
    Engine engine;
    Pool pool;
    std::vector<int32_t> ids;
};

void hidden_states_whatever_the_chunks() {
    constexpr int kSum = 70, kLast = 41, kBoth = 23;
    Made made(DType::f16, Activations::int8);
    const std::vector<reference::Floats> expected = made.plain->hidden({made.ids.begin(), made.ids.begin() + kSum});
    const auto dim = static_cast<size_t>(made.file.config.dim);
    const auto added = [&](int from, int to) {
        std::vector<double> sum(dim, 0.0);
        for (int t = from; t < to; ++t) {
            for (size_t i = 0; i < dim; ++i) sum[i] += static_cast<double>(expected[static_cast<size_t>(t)][i]);
        }
        return sum;
    };
    for (const int chunk : {1, 2, 7, 32, 64, 100, 256, 0}) {
        const auto sum = made.session(DType::f16), last = made.session(DType::f16), both = made.session(DType::f16), none = made.session(DType::f16);
        StepItem items[4];
        const std::pair<Session*, int> sizes[] = {{sum.get(), kSum}, {last.get(), kLast}, {both.get(), kBoth}, {none.get(), kBoth}};
        StepRequest request;
        request.chunk = chunk;
        for (size_t i = 0; i < 4; ++i) {
            items[i].session = sizes[i].first;
            items[i].tokens.assign(made.ids.begin(), made.ids.begin() + sizes[i].second);
            request.items.push_back(&items[i]);
        }
        items[0].hidden = WantedHidden::sum;
        items[1].hidden = WantedHidden::last;
        items[2].hidden = WantedHidden::sum;
        items[2].logits = items[3].logits = WantedLogits::all;
        CHECK(run_step(made.engine, made.pool, request).ok());
        CHECK(items[0].hidden_state == added(0, kSum) && items[0].rows.empty());
        CHECK(items[1].hidden_state == added(kLast - 1, kLast) && items[1].rows.empty());
        CHECK(items[2].hidden_state == added(0, kBoth));
        CHECK(items[2].rows == items[3].rows && items[3].hidden_state.empty());
        const reference::Floats logits = made.plain->logits(expected[0]);
        CHECK(std::memcmp(logits.data(), items[2].rows.data(), logits.size() * sizeof(float)) == 0);
    }
    // A sum over what came later is of that only.
    const auto session = made.session(DType::f16);
    made.run(*session, 0, 30, WantedLogits::none);
    StepItem rest;
    rest.session = session.get();
    rest.tokens.assign(made.ids.begin() + 30, made.ids.begin() + kSum);
    rest.hidden = WantedHidden::sum;
    StepRequest request{{&rest}, 9};
    CHECK(run_step(made.engine, made.pool, request).ok() && rest.hidden_state == added(30, kSum));
}

using Chunks = std::vector<std::vector<unsigned char>>;

Chunks read(const Session& session) {
    Chunks chunks(static_cast<size_t>(session.used_chunks()));
    for (size_t i = 0; i < chunks.size(); ++i) {
        chunks[i].assign(session.chunk_bytes(), 0xee);
        session.read_chunk(static_cast<int>(i), chunks[i].data());
    }
    return chunks;
}

Status write(Session& session, const Chunks& chunks, int length) {
    for (size_t i = 0; i < chunks.size(); ++i) {
        if (Status status = session.write_chunk(static_cast<int>(i), chunks[i].data()); !status.ok()) return status;
    }
    return session.restored(length);
}

void copies_go_on_as_the_original(DType kv, Activations activations) {
    Made made(kv, activations);
    const auto original = made.session(kv);
    made.run(*original, 0, kTokens, WantedLogits::none);
    for (const int length : {0, 1, 15, 16, 17, 255, 256, 257, 300, 511, 512, 513, 590}) {
        original->rewind(length);
        const Chunks chunks = read(*original);
        CHECK(static_cast<int>(chunks.size()) == (length + kKvChunk - 1) / kKvChunk);
        // What was rewound leaves no trace: the same bytes as of a session that never was longer.
        const auto fresh = made.session(kv);
        if (length > 0) made.run(*fresh, 0, length, WantedLogits::none, 19);
        CHECK(chunks == read(*fresh));
        // Into a session that held something else, and one of another capacity.
        const auto copy = made.session(kv, kTokens + 1);
        made.run(*copy, 100, 180, WantedLogits::none);
        copy->rewind(0);
        CHECK(write(*copy, chunks, length).ok() && copy->length() == length && read(*copy) == chunks);
        const StepItem there = made.run(*copy, length, length + 8, WantedLogits::all, 3);
        const StepItem here = made.run(*original, length, length + 8, WantedLogits::all);
        CHECK(there.rows.size() == 8 * 96 && there.rows == here.rows && read(*copy) == read(*original));
        if (length < kTokens - 8) made.run(*original, length + 8, kTokens, WantedLogits::none);
    }
}

bool refused(const Status& status) { return !status.ok() && std::string(status.code) == "ERR_BAD_OPTION"; }

// No memory that was not written ever counts as a position.
void what_was_not_written() {
    Made made(DType::f16, Activations::int8);
    const auto original = made.session(DType::f16);
    made.run(*original, 0, 300, WantedLogits::none);
    const Chunks chunks = read(*original);
    const auto session = made.session(DType::f16, 300);
    CHECK(refused(session->restored(1)) && refused(session->restored(-1)));
    CHECK(refused(session->write_chunk(1, chunks[1].data())) && refused(session->write_chunk(-1, chunks[1].data())));
    CHECK(session->write_chunk(0, chunks[0].data()).ok() && refused(session->write_chunk(0, chunks[0].data())));
    CHECK(refused(session->restored(257)) && session->length() == 0);
    CHECK(session->write_chunk(1, chunks[1].data()).ok());
    CHECK(refused(session->write_chunk(2, chunks[1].data())) && refused(session->restored(301)));
    // Something else in between: all of it must be written again.
    made.run(*session, 0, 1, WantedLogits::none);
    CHECK(refused(session->restored(300)) && refused(session->write_chunk(0, chunks[0].data())));
    session->rewind(0);
    CHECK(refused(session->restored(1)) && refused(session->write_chunk(1, chunks[1].data())));
    CHECK(write(*session, chunks, 300).ok() && session->length() == 300 && refused(session->restored(300)));
    session->rewind(0);
    CHECK(refused(session->restored(1)) && session->restored(0).ok());
}

}  // namespace

int main() {
    hidden_states_whatever_the_chunks();
    for (const DType kv : {DType::f16, DType::f32, DType::q8}) {
        copies_go_on_as_the_original(kv, kv == DType::f32 ? Activations::f32 : Activations::int8);
        if (check::few_variants()) break;
    }
    what_was_not_written();
    return check::summary();
}
