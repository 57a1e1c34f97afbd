// Reading the fields of an options object.
#pragma once

#include <cfloat>
#include <string>
#include <string_view>
#include <vector>

#include "napi/addon.h"

namespace onebit {

// The lines of a text; none of an empty one (config.cpp).
std::vector<std::string> lines_of(std::string_view text);

constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

// Reads the fields of one JavaScript object; after the first bad one everything else is skipped.
class Fields {
public:
    Fields(Napi::Env env, Napi::Value value, const char* name) : env_(env), ok_(read_object(env, value, name, &object_)) {}

    bool ok() const { return ok_; }
    Napi::Value get(const char* name) { return ok_ ? object_.Get(name) : Napi::Value(); }
    void integer(const char* name, int64_t min, int64_t max, int32_t* out) {
        ok_ = ok_ && read_int(env_, get(name), name, min, max, out);
    }
    void integer(const char* name, int64_t min, int64_t max, uint64_t* out) {
        int64_t value = 0;
        ok_ = ok_ && read_int(env_, get(name), name, min, max, &value);
        *out = static_cast<uint64_t>(value);
    }
    void number(const char* name, double min, double max, double* out) {
        ok_ = ok_ && read_double(env_, get(name), name, min, max, out);
    }
    void number(const char* name, float min, float max, float* out) {
        ok_ = ok_ && read_float(env_, get(name), name, min, max, out);
    }
    void number(const char* name, double* out) { ok_ = ok_ && read_double(env_, get(name), name, -DBL_MAX, DBL_MAX, out); }
    void number(const char* name, float* out) { ok_ = ok_ && read_float(env_, get(name), name, -FLT_MAX, FLT_MAX, out); }
    void boolean(const char* name, bool* out) { ok_ = ok_ && read_bool(env_, get(name), name, out); }
    void text(const char* name, size_t max, std::string* out) { ok_ = ok_ && read_string(env_, get(name), name, max, out); }
    template <class T>
    void array(const char* name, size_t max, std::vector<T>* out) {
        ok_ = ok_ && read_array(env_, get(name), name, max, out);
    }

private:
    Napi::Env env_;
    Napi::Object object_;
    bool ok_;
};

}  // namespace onebit
