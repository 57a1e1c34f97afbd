// Generations without Node: the same tokens whatever runs beside them, aborted and stopped at any moment, the consumer
// behind. The program for ThreadSanitizer: a worker, its pool, and the thread that JavaScript would be.
#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"
#include "made_model.h"
#include "run/generation.h"

using namespace onebit;
using namespace std::chrono_literals;

namespace {

// What the "JavaScript thread" keeps of one generation.
struct Told {
    std::mutex mutex;
    std::vector<int32_t> ids;
    size_t tops = 0;  // tokens that came with their two likeliest

    size_t count() {
        const std::lock_guard<std::mutex> lock(mutex);
        return ids.size();
    }
};

class ToldJob final : public Generation {
public:
    std::shared_ptr<Told> told = std::make_shared<Told>();

protected:
    void tell(std::vector<Made> made_tokens) override {
        const std::lock_guard<std::mutex> lock(told->mutex);
        for (const Made& one : made_tokens) {
            told->ids.push_back(one.choice.id);
            told->tops += one.scores.top_ids.size() == 2;
        }
    }
};

struct Consumer {
    std::unique_ptr<Session> session;
    std::atomic<bool> stop{false};
    Progress progress;
    Sampler sampler;
    std::shared_ptr<Told> told;
    CancelFlag cancel;

    explicit Consumer(const std::shared_ptr<Model>& model, uint64_t seed) : sampler(options(seed), {}) {
        CHECK(Session::create(model, 200, DType::f16, &session).ok());
    }
    static SamplingOptions options(uint64_t seed) {
        SamplingOptions sampling;
        sampling.seed = seed;
        sampling.first = 60;
        return sampling;
    }

    std::unique_ptr<ToldJob> job(const std::shared_ptr<Engine>& engine, int64_t most) {
        auto made_job = std::make_unique<ToldJob>();
        made_job->engine = engine;
        made_job->item.session = session.get();
        made_job->item.stop = &stop;
        made_job->item.tokens = {3, 1, 4, 1, 5, 9, 2, 6};
        made_job->item.sampler = &sampler;
        made_job->progress = &progress;
        made_job->most = most;
        told = made_job->told;
        cancel = made_job->cancel;
        return made_job;
    }
};

std::shared_ptr<Engine> new_engine(const std::shared_ptr<Model>& model, int threads) {
    auto engine = std::make_shared<Engine>();
    engine->model = model;
    engine->threads = threads;
    return engine;
}

void wait_for(const std::atomic<int>& news, int wanted) {
    while (news < wanted) std::this_thread::yield();
}

std::vector<int32_t> alone(const std::shared_ptr<Model>& model, uint64_t seed, int64_t most) {
    std::atomic<int> news{0};
    Worker worker([&] { ++news; });
    Consumer consumer(model, seed);
    consumer.progress.taken = 1 << 20;
    CHECK(worker.post(consumer.job(new_engine(model, 1), most)).ok());
    wait_for(news, 1);
    CHECK(worker.take_finished()[0]->status.ok());
    return consumer.told->ids;
}

// What will be chosen, with one in so many tokens another, and the prompt behind it: a text whose guesses are partly right.
std::vector<int32_t> partly_said(std::vector<int32_t> wanted, made::Random& random, int one_in) {
    for (int32_t& id : wanted) {
        if (random.chance(one_in)) id = random.between(0, 89);
    }
    wanted.insert(wanted.end(), {3, 1, 4, 1, 5, 9, 2, 6});
    return wanted;
}

// What follows is guessed from a text that is partly what will be chosen: the same tokens, whatever is right of it, and the
// session holds what it would without guesses.
void guesses_change_nothing(const std::shared_ptr<Model>& model) {
    const bool has_states = model->config.delta_v_heads > 0;
    const uint64_t seeds = check::few_variants() ? 4 : 12;
    for (uint64_t seed = 0; seed < seeds; ++seed) {
        const int64_t most = seed == 0 ? 1 : 40 + static_cast<int64_t>(seed);
        const std::vector<int32_t> wanted = alone(model, seed, most);
        made::Random random{seed};
        const std::vector<int32_t> said = partly_said(wanted, random, 6);
        Guesser guesser(said, random.between(1, Guesser::kMost), true);
        std::atomic<int> news{0};
        Worker worker([&] { ++news; });
        Consumer consumer(model, seed);
        consumer.progress.taken = 1 << 20;
        auto job = consumer.job(new_engine(model, 2), most);
        job->guesser = &guesser;
        job->item.wants_scores = true;
        job->item.score = {7, 2, -1};
        if (seed % 3 == 2) job->stop_tokens = {wanted[wanted.size() / 2]};
        const std::vector<int32_t> stops = job->stop_tokens;
        CHECK(worker.post(std::move(job)).ok());
        wait_for(news, 1);
        const auto finished = worker.take_finished();
        CHECK(finished[0]->status.ok());
        std::vector<int32_t> told = wanted;
        for (size_t i = 0; i < told.size(); ++i) {
            if (!stops.empty() && told[i] == stops[0]) told.resize(i + 1);
        }
        CHECK(consumer.told->ids == told);
        CHECK(consumer.told->tops == told.size());
        const int computed = 8 + static_cast<int>(told.size()) - 1;
        CHECK(has_states ? consumer.session->length() <= computed : consumer.session->length() == computed);
    }
}

// A consumer that takes nothing, and one that takes what there is in between: the job ends, and the next one knows the last token
// only, so the session must hold all before it.
void guesses_of_one_that_is_behind(const std::shared_ptr<Model>& model) {
    for (uint64_t seed = 0; seed < 6; ++seed) {
        const std::vector<int32_t> wanted = alone(model, seed, 150);
        made::Random random{seed};
        Guesser guesser(partly_said(wanted, random, 3), 6, true);
        Consumer consumer(model, seed);
        std::vector<int32_t> ids;
        for (int jobs = 0; ids.size() < wanted.size() && jobs < 150; ++jobs) {
            std::atomic<int> news{0};
            Worker worker([&] { ++news; });
            auto job = consumer.job(new_engine(model, 2), 150 - static_cast<int64_t>(ids.size()));
            if (jobs > 0) job->item.tokens = {ids.back()};
            job->guesser = &guesser;
            CHECK(worker.post(std::move(job)).ok());
            wait_for(news, 1);
            CHECK(worker.take_finished()[0]->status.ok());
            ids.insert(ids.end(), consumer.told->ids.begin(), consumer.told->ids.end());
            const bool last = ids.size() == wanted.size();
            CHECK(last || consumer.session->length() == 8 + static_cast<int>(ids.size()) - 1);
            consumer.progress.taken = static_cast<int64_t>(ids.size());
        }
        CHECK(ids == wanted);
    }
}

// A small model guesses, which is the large one itself (all is right), another, or one whose context is soon full; told to stop
// in the middle too. The same tokens, and its session holds a beginning of what was said.
void drafts_change_nothing(const std::shared_ptr<Model>& model, const std::shared_ptr<Model>& other) {
    for (uint64_t seed = 0; seed < (check::few_variants() ? 6u : 18u); ++seed) {
        const int64_t most = 1 + static_cast<int64_t>(seed * 7 % 60);
        const std::vector<int32_t> wanted = alone(model, seed, most);
        const std::shared_ptr<Model>& small = seed % 3 == 0 ? model : other;
        made::Random random{seed};
        std::unique_ptr<Session> session;
        CHECK(Session::create(small, seed % 3 == 2 ? 20 : 200, DType::f16, &session).ok());
        std::vector<int32_t> said = {3, 1, 4, 1, 5, 9, 2, 6};
        Guesser guesser(said, 4, false);  // what was said gives nothing: how long a step takes is known only behind the first
        Ledger ledger(random.between(1, Guesser::kMost), true);
        std::atomic<bool> stop{seed == 4};
        std::atomic<int> news{0};
        Worker worker([&] { ++news; });
        Consumer consumer(model, seed);
        consumer.progress.taken = 1 << 20;
        auto job = consumer.job(new_engine(model, 2), most);
        job->guesser = &guesser;
        job->draft_ledger = &ledger;
        job->drafter = std::make_unique<Drafter>(new_engine(small, 1), session.get(), &stop, true);
        CHECK(worker.post(std::move(job)).ok());
        wait_for(news, 1);
        const auto finished = worker.take_finished();
        CHECK(finished[0]->status.ok());
        CHECK(consumer.told->ids == wanted);
        CHECK(consumer.session->length() == 8 + static_cast<int>(wanted.size()) - 1);
        static_cast<ToldJob&>(*finished[0]).drafter->settle(guesser.said());
        said.insert(said.end(), wanted.begin(), wanted.end());
        CHECK(guesser.said() == said);
        CHECK(session->length() <= static_cast<int>(said.size()));
        if (most > 2 && seed != 4) CHECK(session->length() > 8);  // it was asked, and more than the prompt
        // and what it holds is computed as ever: the next guess is that of a session that reads all of it anew
        std::unique_ptr<Session> fresh;
        CHECK(Session::create(small, 200, DType::f16, &fresh).ok());
        if (said.size() + 3 > static_cast<size_t>(session->capacity())) continue;
        stop = false;
        Pool pool;
        Drafter again(new_engine(small, 1), session.get(), nullptr, true), anew(new_engine(small, 1), fresh.get(), nullptr, true);
        const std::vector<int32_t> guesses = anew.guess(pool, said, 3, nullptr);
        CHECK(guesses.size() == 3 && again.guess(pool, said, 3, nullptr) == guesses);
    }
}

// What the large model itself guesses is what it takes for likeliest; unsure, cancelled, or with no room it guesses nothing.
void a_drafter_alone(const std::shared_ptr<Model>& model) {
    Pool pool;
    std::unique_ptr<Session> session;
    CHECK(Session::create(model, 12, DType::f16, &session).ok());
    const std::vector<int32_t> said = {3, 1, 4, 1, 5};
    Drafter drafter(new_engine(model, 1), session.get(), nullptr, true);
    drafter.read(pool, said, nullptr);
    CHECK(session->length() == 4);
    const std::vector<int32_t> first = drafter.guess(pool, said, 4, nullptr);
    CHECK(first.size() == 4 && session->length() == 8);
    std::vector<int32_t> more = said;
    more.insert(more.end(), first.begin(), first.begin() + 2);
    const std::vector<int32_t> second = drafter.guess(pool, more, 20, nullptr);
    CHECK(second.size() == 6);  // of 12 positions 7 are said, and the last guess needs none
    CHECK(second[0] == first[2] && second[1] == first[3]);
    drafter.settle(said);
    CHECK(session->length() == 5);
    CHECK(drafter.guess(pool, said, 4, nullptr) == first);
    std::atomic<bool> cancelled{true};
    CHECK(drafter.guess(pool, more, 4, &cancelled).empty());
    CHECK(drafter.guess(pool, more, 2, nullptr) == std::vector<int32_t>(first.begin() + 2, first.end()));
    more.resize(13, 1);
    CHECK(drafter.guess(pool, more, 4, nullptr).empty());
    CHECK(drafter.guess(pool, {}, 4, nullptr).empty());
    Drafter unsure(new_engine(model, 1), session.get(), nullptr, false);
    CHECK(unsure.guess(pool, said, 4, nullptr).size() < 4);  // random weights are hardly ever sure of a token
}

// Several at once take turns, and none changes another's tokens.
void generations_share_a_worker(const std::shared_ptr<Model>& model) {
    constexpr int kMost = 60;
    std::atomic<int> news{0};
    Worker worker([&] { ++news; });
    const auto engine = new_engine(model, 3);
    std::vector<std::unique_ptr<Consumer>> consumers;
    for (uint64_t seed = 0; seed < 4; ++seed) {
        consumers.push_back(std::make_unique<Consumer>(model, seed));
        consumers.back()->progress.taken = 1 << 20;
        CHECK(worker.post(consumers.back()->job(engine, kMost)).ok());
    }
    wait_for(news, 4);
    for (uint64_t seed = 0; seed < 4; ++seed) CHECK(consumers[seed]->told->ids == alone(model, seed, kMost));
}

// A sampler that is held chooses when it is told what it may, as if it had been told before; not told in time, or not
// wanted any more, it chooses nothing, and the tokens before are there.
void a_sampler_that_is_held(const std::shared_ptr<Model>& model) {
    constexpr int32_t kOnly = 7;
    const size_t words = (static_cast<size_t>(model->config.vocab_size) + 31) / 32;
    std::vector<int32_t> mask(words, 0);
    mask[kOnly / 32] |= 1 << kOnly % 32;
    for (const auto wait : {0ms, 2ms, 8ms}) {
        std::atomic<int> news{0};
        Worker worker([&] { ++news; });
        Consumer consumer(model, 5);
        consumer.sampler.hold();
        CHECK(worker.post(consumer.job(new_engine(model, 2), 1)).ok());
        std::this_thread::sleep_for(wait);
        consumer.sampler.allow(mask);
        wait_for(news, 1);
        const auto job = std::move(worker.take_finished()[0]);
        // A machine that is busy with other things may take longer than a sampler waits.
        if (!job->status.ok()) CHECK(std::string(job->status.code) == "ERR_HELD");
        else CHECK(consumer.told->ids == std::vector<int32_t>{kOnly});
    }
    for (const bool cancelled : {false, true}) {
        std::atomic<int> news{0};
        Worker worker([&] { ++news; });
        Consumer consumer(model, 5);
        consumer.sampler.hold();
        CHECK(worker.post(consumer.job(new_engine(model, 2), 1)).ok());
        if (cancelled) consumer.cancel->store(true);
        wait_for(news, 1);
        const auto job = std::move(worker.take_finished()[0]);
        CHECK(job->status.ok() ? cancelled : std::string(job->status.code) == "ERR_HELD");
        CHECK(consumer.told->ids.empty());
        CHECK(consumer.session->length() == (job->status.ok() ? 0 : 8));
    }
}

// Little lies ahead of a consumer that takes nothing, and it goes on where it was.
void a_consumer_that_is_behind(const std::shared_ptr<Model>& model) {
    std::atomic<int> news{0};
    Worker worker([&] { ++news; });
    Consumer consumer(model, 9);
    CHECK(worker.post(consumer.job(new_engine(model, 2), 150)).ok());
    wait_for(news, 1);
    const auto finished = worker.take_finished();
    const auto& job = static_cast<const ToldJob&>(*finished[0]);
    CHECK(job.status.ok() && job.behind() && job.told->ids.size() <= 49 && !job.told->ids.empty());
    std::vector<int32_t> ids = job.told->ids;
    consumer.progress.taken = 1 << 20;
    auto rest = consumer.job(new_engine(model, 2), 150 - static_cast<int64_t>(ids.size()));
    rest->item.tokens = {ids.back()};
    CHECK(worker.post(std::move(rest)).ok());
    wait_for(news, 2);
    ids.insert(ids.end(), consumer.told->ids.begin(), consumer.told->ids.end());
    CHECK(ids == alone(model, 9, 150));
}

// By its cancel flag, by its session's, or with the worker: at any moment, from another thread.
void stopped_at_any_moment(const std::shared_ptr<Model>& model, int times) {
    for (int i = 0; i < times; ++i) {
        std::atomic<int> news{0};
        Worker worker([&] { ++news; });
        const auto engine = new_engine(model, 1 + i % 3);
        Consumer first(model, 1), second(model, 2);
        first.progress.taken = second.progress.taken = 1 << 20;
        CHECK(worker.post(first.job(engine, 1 << 20)).ok());
        CHECK(worker.post(second.job(engine, 1 << 20)).ok());
        std::this_thread::sleep_for(std::chrono::microseconds(83 * (i % 40)));
        if (i % 4 == 0) {
            worker.stop();
        } else if (i % 4 == 1) {
            first.cancel->store(true);
            second.cancel->store(true);
        } else if (i % 4 == 2) {
            first.stop = true;
            second.cancel->store(true);
        }  // otherwise they end when their contexts are full
        if (i % 4 != 0) wait_for(news, 2);
        worker.stop();
        CHECK(first.session->length() <= 200 && second.session->length() <= 200);
        const size_t told = first.told->count();
        CHECK(told <= 193);
        first.session->rewind(0);
        CHECK(first.session->length() == 0);
    }
}

}  // namespace

int main() {
    Config config = made::small_config();
    config.vocab_size = 90;
    config.context_length = 400;
    LinearKind sign;
    sign.form = LinearKind::Form::sign;
    sign.layernorm = true;
    LinearKind table;
    table.dtype = DType::q8;
    const made::ModelFile file(config, made::kinds_of(config, sign, table), 3);
    Pool pool;
    std::shared_ptr<Model> model;
    if (!CHECK(file.load(*choose_kernels(std::getenv("ONEBIT_ISA"), nullptr), Activations::int8, pool, &model).ok())) return check::summary();
    generations_share_a_worker(model);
    guesses_change_nothing(model);
    const made::ModelFile small(config, made::kinds_of(config, table, table), 4);
    std::shared_ptr<Model> other;
    if (!CHECK(small.load(*model->kernels, Activations::int8, pool, &other).ok())) return check::summary();
    drafts_change_nothing(model, other);
    guesses_of_one_that_is_behind(model);
    // with layers whose states go back to where a step began, not to where a guess was wrong
    config.delta_layers = {1};
    config.delta_k_heads = 2, config.delta_v_heads = 4, config.delta_k_dim = 20, config.delta_v_dim = 32, config.delta_conv = 4;
    const made::ModelFile recurrent(config, made::kinds_of(config, sign, table), 5);
    std::shared_ptr<Model> states;
    if (!CHECK(recurrent.load(*model->kernels, Activations::int8, pool, &states).ok())) return check::summary();
    guesses_change_nothing(states);
    guesses_of_one_that_is_behind(states);
    a_drafter_alone(model);
    a_sampler_that_is_held(model);
    a_consumer_that_is_behind(model);
    stopped_at_any_moment(model, check::few_variants() ? 40 : 200);
    return check::summary();
}
