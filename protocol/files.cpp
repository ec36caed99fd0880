// SPDX-License-Identifier: Apache-2.0
#include "protocol/files.hpp"

#include <cassert>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "protocol/frame_stream.hpp"
#include "protocol/frames.hpp"
#include "protocol/host_frames.hpp"

namespace msb::protocol {

namespace {

constexpr std::size_t kMaxTarget = 4095;  // PATH_MAX without its 0 byte (symlink(7))

constexpr msb_file_request kNoFields{
    .flags = 0, .mode = 0, .user = kSameOwner, .group = kSameOwner, .offset = 0, .length = 0};

bool is_plain_name(std::string_view name) {
  return name != "." && name != ".." && name.find('/') == std::string_view::npos;
}

// A relative path that stays below where it starts: whoever joins it to a directory of its own
// gets nothing outside of that.
bool is_path_below(std::string_view path) {
  while (true) {
    const std::size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    if (name.empty() || !is_plain_name(name)) {
      return false;
    }
    if (slash == std::string_view::npos) {
      return true;
    }
    path.remove_prefix(slash + 1);
  }
}

// What an operation expects of the guest; what it does not name, the guest may not send.
struct Exchange {
  std::function<Result<void>(const FileEntry&)> entry;
  std::function<Result<bool>(std::span<const std::byte>)> data;  // false: no more until resume()
  Files::More more;                                              // with it, the host sends data
  std::function<Result<std::function<void()>>(std::uint64_t value)> done;
  std::function<void(Failure)> fail;
};

template <typename T>
std::function<void(Failure)> failing(Files::Done<T> done) {
  return [done = std::move(done)](Failure failure) { done(std::unexpected(std::move(failure))); };
}

Result<std::function<void()>> succeed(const Files::Done<std::uint64_t>& done, std::uint64_t value) {
  return [done, value] { done(value); };
}

Error counts_differ() {
  return {"the guest counts other files or bytes than came", EPROTO};
}

Exchange plain(Files::Done<void> done) {
  return {.entry = {},
          .data = {},
          .more = {},
          .done = [done](std::uint64_t) -> Result<std::function<void()>> {
            return [done] { done({}); };
          },
          .fail = failing(std::move(done))};
}

// Names that may come in answer to LIST, WALK and DIFF.
bool is_listed(const FileEntry& entry) {
  return is_plain_name(entry.name) && entry.fields.change == 0;
}
bool is_below(const FileEntry& entry) {
  return is_path_below(entry.name) && entry.fields.change == 0;
}
bool is_change(const FileEntry& entry) {
  return is_path_below(entry.name) && entry.fields.change != 0;
}

Exchange entries(bool (*fits)(const FileEntry&), Files::Entry each,
                 Files::Done<std::uint64_t> done) {
  const auto count = std::make_shared<std::uint64_t>(0);
  return {.entry = [fits, each = std::move(each), count](const FileEntry& entry) -> Result<void> {
            if (!fits(entry)) {
              return std::unexpected(
                  Error{"the guest sent a name that leads out of its directory, or is no answer "
                        "to what was asked",
                        EPROTO});
            }
            ++*count;
            each(entry);
            return {};
          },
          .data = {},
          .more = {},
          .done = [count, done](std::uint64_t value) -> Result<std::function<void()>> {
            if (value != *count) {
              return std::unexpected(counts_differ());
            }
            return succeed(done, value);
          },
          .fail = failing(std::move(done))};
}

}  // namespace

class Files::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, Fd socket)
      : stream_(io, std::move(socket), Connection::kFiles, FrameStream::Greeting::kExpected,
                {.frame = [this](const Frame& frame) { return on_frame(frame); },
                 .closed = [this](std::optional<Error> error) { on_closed(std::move(error)); },
                 .sent = [this] { on_sent(); }}) {}

  void start() {
    stream_.send(encode_frame(MSB_FILES, {}));
    stream_.start();
  }
  void begin(Result<FrameBytes> request, Exchange operation);
  void send(std::span<const std::byte> bytes);
  void end_data();
  void resume() { stream_.resume(); }
  void close() {
    quiet_ = true;
    stream_.close();
  }
  [[nodiscard]] bool open() const { return !broken_; }
  [[nodiscard]] bool busy() const { return operation_.has_value(); }
  // Bytes that the host sent for the operation under way.
  [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_; }

 private:
  bool on_frame(const Frame& frame);
  bool on_answer(const Frame& frame);
  bool on_entry(const Frame& frame);
  bool on_data(const Frame& frame);
  void on_done(const Frame& frame);
  void on_refused(const Frame& frame);
  void on_sent();
  void on_closed(std::optional<Error> error);
  void break_off(Error error);

  std::optional<Exchange> operation_;
  std::optional<Error> broken_;
  FrameBytes waiting_;  // the first request, until FILES is answered
  bool ready_ = false;
  bool sending_ = false;  // the host's data has not ended
  std::uint64_t sent_bytes_ = 0;
  bool quiet_ = false;  // the owner is gone
  FrameStream stream_;
};

void Files::State::begin(Result<FrameBytes> request, Exchange operation) {
  assert(!busy());
  if (!request) {
    operation.fail({MSB_STAGE_REQUEST, request.error()});
    return;
  }
  if (broken_) {
    operation.fail({0, *broken_});
    return;
  }
  sending_ = static_cast<bool>(operation.more);
  sent_bytes_ = 0;
  operation_ = std::move(operation);
  if (ready_) {
    stream_.send(std::move(*request));
  } else {
    waiting_ = std::move(*request);
  }
}

void Files::State::send(std::span<const std::byte> bytes) {
  assert(sending_ || broken_);
  if (sending_) {
    sent_bytes_ += bytes.size();
    FrameBytes frames;
    append_data(frames, MSB_FILE_DATA, bytes);
    stream_.send(std::move(frames));
  }
}

void Files::State::end_data() {
  if (std::exchange(sending_, false)) {
    stream_.send(encode_frame(MSB_FILE_DATA, {}));
  }
}

void Files::State::on_sent() {
  if (ready_ && sending_ && operation_) {
    const auto kept = shared_from_this();
    const More more = operation_->more;  // outlives the operation, should that end in it
    more();
  }
}

bool Files::State::on_frame(const Frame& frame) {
  const auto kept = shared_from_this();
  if (ready_) {
    return on_answer(frame);
  }
  if (frame.type == MSB_DONE) {
    ready_ = true;
    stream_.send(std::exchange(waiting_, {}));
  } else if (frame.type == MSB_REFUSED) {
    const auto failure = decode_failure(frame);
    break_off(failure ? failure->error : failure.error());
  } else {
    break_off(out_of_place(frame));
  }
  return true;
}

bool Files::State::on_answer(const Frame& frame) {
  if (!operation_) {
    break_off(out_of_place(frame));
    return true;
  }
  switch (frame.type) {
    case MSB_FILE_ENTRY:
      return on_entry(frame);
    case MSB_FILE_DATA:
      return on_data(frame);
    case MSB_DONE:
      on_done(frame);
      return true;
    case MSB_REFUSED:
      on_refused(frame);
      return true;
    default:
      break_off(out_of_place(frame));
      return true;
  }
}

bool Files::State::on_entry(const Frame& frame) {
  if (!operation_->entry) {
    break_off(out_of_place(frame));
    return true;
  }
  const auto entry = decode_file_entry(frame);
  const auto taken =
      entry ? operation_->entry(*entry) : Result<void>(std::unexpected(entry.error()));
  if (!taken && !quiet_) {
    break_off(taken.error());
  }
  return true;
}

bool Files::State::on_data(const Frame& frame) {
  if (!operation_->data) {
    break_off(out_of_place(frame));
    return true;
  }
  const auto more = operation_->data(frame.payload);
  if (quiet_) {
    return true;
  }
  if (!more) {
    break_off(more.error());
    return true;
  }
  return *more;
}

void Files::State::on_done(const Frame& frame) {
  const auto answer = decode_done(frame);
  // A host that still sends data has not said yet all of what this would be the answer to.
  auto finish = answer && !sending_ ? operation_->done(answer->value)
                                    : Result<std::function<void()>>(std::unexpected(
                                          answer ? out_of_place(frame) : answer.error()));
  if (!finish) {
    break_off(finish.error());
    return;
  }
  operation_.reset();
  (*finish)();
}

void Files::State::on_refused(const Frame& frame) {
  const auto failure = decode_failure(frame);
  if (!failure || sending_) {
    break_off(failure ? out_of_place(frame) : failure.error());
    return;
  }
  const Exchange refused = std::move(*operation_);
  operation_.reset();
  refused.fail(*failure);
}

void Files::State::on_closed(std::optional<Error> error) {
  const auto kept = shared_from_this();
  break_off(error ? std::move(*error)
                  : Error{"the sandbox closed the connection without an answer", ECONNRESET});
}

void Files::State::break_off(Error error) {
  stream_.close();
  broken_ = std::move(error);
  sending_ = false;
  if (operation_) {
    const Exchange lost = std::move(*operation_);
    operation_.reset();
    lost.fail({0, *broken_});
  }
}

Files::Files(AsyncIo& io, Fd socket) : state_(std::make_shared<State>(io, std::move(socket))) {
  state_->start();
}

Files::Files(Files&&) noexcept = default;

Files& Files::operator=(Files&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Files::~Files() {
  if (state_) {
    state_->close();
  }
}

bool Files::open() const {
  return state_->open();
}

bool Files::busy() const {
  return state_->busy();
}

void Files::stat(const std::string& path, bool follow, Done<FileEntry> done) {
  msb_file_request fields = kNoFields;
  fields.flags = follow ? MSB_FILE_FOLLOW : 0;
  const auto found = std::make_shared<std::optional<FileEntry>>();
  state_->begin(encode_file_request(MSB_FILE_STAT, fields, {path}),
                {.entry = [found, path](const FileEntry& entry) -> Result<void> {
                   if (*found || entry.name != path) {
                     return std::unexpected(
                         Error{"the guest described another file than was asked for", EPROTO});
                   }
                   *found = entry;
                   return {};
                 },
                 .data = {},
                 .more = {},
                 .done = [found, done](std::uint64_t) -> Result<std::function<void()>> {
                   if (!*found) {
                     return std::unexpected(counts_differ());
                   }
                   return [found, done] { done(std::move(**found)); };
                 },
                 .fail = failing(std::move(done))});
}

void Files::list(const std::string& path, Entry each, Done<std::uint64_t> done) {
  state_->begin(encode_file_request(MSB_FILE_LIST, kNoFields, {path}),
                entries(is_listed, std::move(each), std::move(done)));
}

void Files::walk(const std::string& path, std::uint64_t depth, Entry each,
                 Done<std::uint64_t> done) {
  msb_file_request fields = kNoFields;
  fields.length = depth;
  state_->begin(encode_file_request(MSB_FILE_WALK, fields, {path}),
                entries(is_below, std::move(each), std::move(done)));
}

void Files::diff(Entry each, Done<std::uint64_t> done) {
  state_->begin(encode_file_request(MSB_FILE_DIFF, kNoFields, {"/"}),
                entries(is_change, std::move(each), std::move(done)));
}

void Files::read(const std::string& path, std::uint64_t offset, std::uint64_t length, Data data,
                 Done<std::uint64_t> done) {
  msb_file_request fields = kNoFields;
  fields.offset = offset;
  fields.length = length;
  const auto count = std::make_shared<std::uint64_t>(0);
  state_->begin(encode_file_request(MSB_FILE_READ, fields, {path}),
                {.entry = {},
                 .data = [count, length, data = std::move(data)](
                             std::span<const std::byte> bytes) -> Result<bool> {
                   if (bytes.size() > length - *count) {
                     return std::unexpected(
                         Error{"the guest sent more of a file than was asked for", EPROTO});
                   }
                   *count += bytes.size();
                   return data(bytes);
                 },
                 .more = {},
                 .done = [count, done](std::uint64_t value) -> Result<std::function<void()>> {
                   if (value != *count) {
                     return std::unexpected(counts_differ());
                   }
                   return succeed(done, value);
                 },
                 .fail = failing(std::move(done))});
}

void Files::pack(const std::string& path, Data data, Done<std::uint64_t> done) {
  state_->begin(
      encode_file_request(MSB_FILE_PACK, kNoFields, {path}),
      {.entry = {},
       .data = [data = std::move(data)](std::span<const std::byte> bytes) -> Result<bool> {
         return data(bytes);
       },
       .more = {},
       .done = [done](std::uint64_t value) { return succeed(done, value); },
       .fail = failing(std::move(done))});
}

void Files::write(const std::string& path, const WriteOptions& options, More more,
                  Done<std::uint64_t> done) {
  const msb_file_request fields{.flags = options.flags,
                                .mode = options.mode,
                                .user = options.user,
                                .group = options.group,
                                .offset = options.offset,
                                .length = 0};
  // The state outlives the operation that it holds.
  const State* state = state_.get();
  state_->begin(encode_file_request(MSB_FILE_WRITE, fields, {path}),
                {.entry = {},
                 .data = {},
                 .more = std::move(more),
                 .done = [state, done](std::uint64_t value) -> Result<std::function<void()>> {
                   if (value != state->sent_bytes()) {
                     return std::unexpected(counts_differ());
                   }
                   return succeed(done, value);
                 },
                 .fail = failing(std::move(done))});
}

void Files::unpack(const std::string& path, const UnpackOptions& options, More more,
                   Done<std::uint64_t> done) {
  msb_file_request fields = kNoFields;
  fields.flags = options.flags;
  fields.user = options.user;
  fields.group = options.group;
  state_->begin(encode_file_request(MSB_FILE_UNPACK, fields, {path}),
                {.entry = {},
                 .data = {},
                 .more = std::move(more),
                 .done = [done](std::uint64_t value) { return succeed(done, value); },
                 .fail = failing(std::move(done))});
}

void Files::mkdir(const std::string& path, std::uint32_t mode, std::uint32_t user,
                  std::uint32_t group, std::uint32_t flags, Done<void> done) {
  msb_file_request fields = kNoFields;
  fields.flags = flags;
  fields.mode = mode;
  fields.user = user;
  fields.group = group;
  state_->begin(encode_file_request(MSB_FILE_MKDIR, fields, {path}), plain(std::move(done)));
}

void Files::remove(const std::string& path, std::uint32_t flags, Done<void> done) {
  msb_file_request fields = kNoFields;
  fields.flags = flags;
  state_->begin(encode_file_request(MSB_FILE_REMOVE, fields, {path}), plain(std::move(done)));
}

void Files::rename(const std::string& path, const std::string& new_path, std::uint32_t flags,
                   Done<void> done) {
  msb_file_request fields = kNoFields;
  fields.flags = flags;
  state_->begin(encode_file_request(MSB_FILE_RENAME, fields, {path, new_path}),
                plain(std::move(done)));
}

void Files::chmod(const std::string& path, std::uint32_t mode, std::uint32_t flags,
                  Done<void> done) {
  msb_file_request fields = kNoFields;
  fields.flags = flags;
  fields.mode = mode;
  state_->begin(encode_file_request(MSB_FILE_CHMOD, fields, {path}), plain(std::move(done)));
}

void Files::chown(const std::string& path, std::uint32_t user, std::uint32_t group,
                  std::uint32_t flags, Done<void> done) {
  msb_file_request fields = kNoFields;
  fields.flags = flags;
  fields.user = user;
  fields.group = group;
  state_->begin(encode_file_request(MSB_FILE_CHOWN, fields, {path}), plain(std::move(done)));
}

void Files::symlink(const std::string& target, const std::string& path, std::uint32_t user,
                    std::uint32_t group, Done<void> done) {
  msb_file_request fields = kNoFields;
  fields.user = user;
  fields.group = group;
  state_->begin(encode_file_request(MSB_FILE_SYMLINK, fields, {target, path}),
                plain(std::move(done)));
}

void Files::readlink(const std::string& path, Done<std::string> done) {
  const auto target = std::make_shared<std::string>();
  state_->begin(
      encode_file_request(MSB_FILE_READLINK, kNoFields, {path}),
      {.entry = {},
       .data = [target](std::span<const std::byte> bytes) -> Result<bool> {
         target->append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
         if (target->size() > kMaxTarget) {
           return std::unexpected(Error{"the guest sent a target that is too long", EPROTO});
         }
         return true;
       },
       .more = {},
       .done = [target, done](std::uint64_t) -> Result<std::function<void()>> {
         if (target->empty()) {
           return std::unexpected(Error{"the guest sent no target", EPROTO});
         }
         return [target, done] { done(std::move(*target)); };
       },
       .fail = failing(std::move(done))});
}

void Files::resume() {
  state_->resume();
}

void Files::send(std::span<const std::byte> bytes) {
  state_->send(bytes);
}

void Files::end_data() {
  state_->end_data();
}

}  // namespace msb::protocol
