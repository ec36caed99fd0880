// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: what a host may send to the file service, from bytes to fields. The input's
// first byte chooses the pieces that it comes in, the rest is what the host sends. Seeds:
// tests/corpus/host-files.
extern "C" {
#include "initramfs/file_request.h"
#include "initramfs/file_stream.h"
}

#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "initramfs/fuzz_support.hpp"
#include "protocol/frames.hpp"
#include "protocol/msb_exec.h"

namespace {

using namespace msb;
using namespace msb::fuzz;
using namespace msb::protocol;

void check_file_request(std::uint32_t type, Bytes payload) {
  file_request request{};
  failure why{};
  if (!file_request_parse(type, reinterpret_cast<const std::uint8_t*>(payload.data()),
                          payload.size(), &request, &why)) {
    require(why.stage == MSB_STAGE_REQUEST && why.text[0] != '\0');
    return;
  }
  std::size_t length = sizeof request.fields + std::strlen(request.path) + 1;
  if (request.new_path != nullptr) {
    length += std::strlen(request.new_path) + 1;
  }
  require(length == payload.size());
  require(*(type == MSB_FILE_SYMLINK ? request.new_path : request.path) == '/');
}

// As file_service.c serves, but for the files: DATA is sent back.
void serve_files(file_stream& stream, std::vector<std::byte>& data) {
  static std::uint8_t buffer[MSB_MAX_REQUEST];
  std::uint32_t type = 0;
  std::uint32_t length = 0;
  while (file_stream_receive_request(&stream, &type, buffer, &length)) {
    // In memory of exactly its size.
    const auto* const bytes = reinterpret_cast<const std::byte*>(buffer);
    check_file_request(type, std::vector<std::byte>(bytes, bytes + length));
    if (file_request_has_data(type)) {
      const std::uint8_t* piece = nullptr;
      std::size_t size = 0;
      const std::size_t limit = length;
      while ((size = file_stream_receive_data(&stream, limit, &piece)) > 0) {
        require(size <= limit);
        file_stream_send_data(&stream, piece, size);
        data.insert(data.end(), reinterpret_cast<const std::byte*>(piece),
                    reinterpret_cast<const std::byte*>(piece) + size);
      }
    }
    msb_done done{};
    const iovec answer = {&done, sizeof done};
    file_stream_send(&stream, MSB_DONE, &answer, 1);
    file_stream_flush(&stream);
  }
  require(stream.broken);
}

void drive_file_service(Bytes bytes) {
  static file_stream stream;
  Fd host;
  int service = -1;
  make_pair(host, service);
  const Fd owned(service);
  require(send(host.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(bytes.size()));
  shutdown(host.get(), SHUT_WR);
  file_stream_open(&stream, service, nullptr, 0);
  std::vector<std::byte> data;
  serve_files(stream, data);

  std::vector<std::byte> answers;
  take(host, answers);
  FrameDecoder decoder(Connection::kFiles);
  decoder.feed(answers);
  std::vector<std::byte> echoed;
  auto frame = decoder.next();
  for (; frame && *frame; frame = decoder.next()) {
    if ((*frame)->type == MSB_FILE_DATA) {
      echoed.insert(echoed.end(), (*frame)->payload.begin(), (*frame)->payload.end());
    }
  }
  // The host has gone before the end of its last DATA: what would be sent to it is dropped.
  require(frame && decoder.at_boundary() && echoed.size() <= data.size());
  require(std::ranges::equal(echoed, Bytes(data).first(echoed.size())));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size >= 1 && size <= kMostInput) {
    drive_file_service(choose_pieces(std::as_bytes(std::span(data, size))));
  }
  return 0;
}
