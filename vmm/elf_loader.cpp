// SPDX-License-Identifier: Apache-2.0
#include "vmm/elf_loader.hpp"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/layout.hpp"

namespace msb::vmm {

namespace {

// Reads exactly the slice's size at `offset` of the file.
Result<void> read_into(int file, std::uint64_t offset, const virtio::GuestSlice& slice) {
  std::size_t done = 0;
  while (done < slice.size()) {
    const iovec target = slice.subslice(done, slice.size() - done).as_iovec();
    const ssize_t count = ::preadv(file, &target, 1, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail_errno(errno, "cannot read the kernel");
    }
    if (count == 0) {
      return fail("the kernel file is truncated: it ends at byte {}", offset + done);
    }
    done += static_cast<std::size_t>(count);
  }
  return {};
}

}  // namespace

Result<ElfImage> parse_elf(std::span<const std::byte> start) {
  Elf64_Ehdr header{};
  if (start.size() < sizeof header) {
    return fail("the kernel is not an ELF file: it has only {} bytes", start.size());
  }
  std::memcpy(&header, start.data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return fail("the kernel is not an ELF file; give an uncompressed vmlinux, not a bzImage");
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64 || header.e_type != ET_EXEC) {
    return fail("the kernel is not a 64-bit x86-64 executable");
  }
  const std::uint64_t table_size = std::uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phoff > start.size() || table_size > start.size() - header.e_phoff) {
    return fail("the kernel's program headers are not within its first {} bytes", start.size());
  }
  ElfImage image{header.e_entry, {}};
  bool entry_inside = false;
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    std::memcpy(&segment, &start[header.e_phoff + i * sizeof segment], sizeof segment);
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) {
      continue;
    }
    std::uint64_t end = 0;
    if (segment.p_filesz > segment.p_memsz ||
        __builtin_add_overflow(segment.p_offset, segment.p_filesz, &end) ||
        end > static_cast<std::uint64_t>(INT64_MAX) ||
        __builtin_add_overflow(segment.p_paddr, segment.p_memsz, &end)) {
      return fail("segment {} of the kernel has impossible sizes", i);
    }
    entry_inside |= header.e_entry >= segment.p_paddr && header.e_entry < end;
    image.segments.push_back(
        {segment.p_offset, segment.p_filesz, segment.p_paddr, segment.p_memsz});
  }
  if (!entry_inside) {
    return fail("the kernel's entry point {:#x} lies in none of its segments", header.e_entry);
  }
  return image;
}

Result<LoadedKernel> load_kernel(int file, const virtio::GuestMemory& memory) {
  std::array<std::byte, kMaxElfHeaders> start;
  const ssize_t size = ::pread(file, start.data(), start.size(), 0);
  if (size < 0) {
    return fail_errno(errno, "cannot read the kernel");
  }
  auto image = parse_elf(std::span(start).first(static_cast<std::size_t>(size)));
  if (!image) {
    return std::unexpected(image.error());
  }
  LoadedKernel kernel{image->entry, 0};
  for (const ElfSegment& segment : image->segments) {
    const auto slice = segment.address < kHighMemoryAddress
                           ? fail("it starts below 1 MiB")
                           : memory.slice(segment.address, segment.memory_size);
    if (!slice) {
      return fail("the kernel does not fit into guest memory: it needs {} MiB at {:#x}",
                  segment.memory_size / kMib + 1, segment.address);
    }
    if (auto read = read_into(file, segment.file_offset, slice->subslice(0, segment.file_size));
        !read) {
      return std::unexpected(read.error());
    }
    kernel.end = std::max(kernel.end, segment.address + segment.memory_size);
  }
  return kernel;
}

}  // namespace msb::vmm
