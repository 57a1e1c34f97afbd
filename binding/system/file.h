// Reading a file at offsets from several threads, without a mapping: a file cut short under a mapping kills the
// process, a short read is only an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "system/status.h"

namespace onebit {

class File {
public:
    File() = default;
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    Status open(const std::string& utf8_path);  // for reading; also finds the size
    uint64_t size() const { return size_; }
    // Fills buffer completely or fails (ERR_READ; ERR_TRUNCATED when the file ends early). Any thread.
    Status read_at(uint64_t offset, void* buffer, size_t bytes) const;

private:
#if defined(_WIN32)
    void* handle_ = nullptr;
#else
    int handle_ = -1;
#endif
    uint64_t size_ = 0;
};

}  // namespace onebit
