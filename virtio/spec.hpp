// SPDX-License-Identifier: Apache-2.0
// Constants and layouts of "Virtual I/O Device (VIRTIO) Version 1.2", and nothing else. Section
// numbers are its own. All multi-byte fields are little-endian, as is every processor this project
// runs on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace msb::virtio {

// 2.1 Device status field
inline constexpr std::uint32_t kStatusAcknowledge = 1;
inline constexpr std::uint32_t kStatusDriver = 2;
inline constexpr std::uint32_t kStatusDriverOk = 4;
inline constexpr std::uint32_t kStatusFeaturesOk = 8;
inline constexpr std::uint32_t kStatusNeedsReset = 64;
inline constexpr std::uint32_t kStatusFailed = 128;

// 6 Reserved feature bits
inline constexpr std::uint64_t kFeatureIndirectDescriptors = std::uint64_t{1} << 28;
inline constexpr std::uint64_t kFeatureEventIndex = std::uint64_t{1} << 29;
inline constexpr std::uint64_t kFeatureVersion1 = std::uint64_t{1} << 32;

// 2.7.5 The virtqueue descriptor table
struct Descriptor {
  std::uint64_t address;
  std::uint32_t length;
  std::uint16_t flags;
  std::uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);
inline constexpr std::uint16_t kDescriptorNext = 1;
inline constexpr std::uint16_t kDescriptorWrite = 2;
inline constexpr std::uint16_t kDescriptorIndirect = 4;

// 2.7 Alignment of the three parts of a split virtqueue
inline constexpr std::uint64_t kDescriptorTableAlignment = 16;
inline constexpr std::uint64_t kAvailableRingAlignment = 2;
inline constexpr std::uint64_t kUsedRingAlignment = 4;
inline constexpr std::uint16_t kMaxQueueSize = 32768;

// 2.7.6 The available ring: flags, idx, ring[], used_event
inline constexpr std::uint64_t kAvailableFlags = 0;
inline constexpr std::uint64_t kAvailableIndex = 2;
inline constexpr std::uint64_t kAvailableEntries = 4;
inline constexpr std::uint16_t kAvailableNoInterrupt = 1;

// 2.7.8 The used ring: flags, idx, ring[], avail_event
inline constexpr std::uint64_t kUsedIndex = 2;
inline constexpr std::uint64_t kUsedEntries = 4;
struct UsedElement {
  std::uint32_t id;
  std::uint32_t length;
};
static_assert(sizeof(UsedElement) == 8);

// 4.2.2 MMIO device register layout
inline constexpr std::uint64_t kMmioMagicValue = 0x000;
inline constexpr std::uint64_t kMmioVersion = 0x004;
inline constexpr std::uint64_t kMmioDeviceId = 0x008;
inline constexpr std::uint64_t kMmioVendorId = 0x00c;
inline constexpr std::uint64_t kMmioDeviceFeatures = 0x010;
inline constexpr std::uint64_t kMmioDeviceFeaturesSel = 0x014;
inline constexpr std::uint64_t kMmioDriverFeatures = 0x020;
inline constexpr std::uint64_t kMmioDriverFeaturesSel = 0x024;
inline constexpr std::uint64_t kMmioQueueSel = 0x030;
inline constexpr std::uint64_t kMmioQueueSizeMax = 0x034;
inline constexpr std::uint64_t kMmioQueueSize = 0x038;
inline constexpr std::uint64_t kMmioQueueReady = 0x044;
inline constexpr std::uint64_t kMmioQueueNotify = 0x050;
inline constexpr std::uint64_t kMmioInterruptStatus = 0x060;
inline constexpr std::uint64_t kMmioInterruptAck = 0x064;
inline constexpr std::uint64_t kMmioStatus = 0x070;
inline constexpr std::uint64_t kMmioQueueDescLow = 0x080;
inline constexpr std::uint64_t kMmioQueueDescHigh = 0x084;
inline constexpr std::uint64_t kMmioQueueDriverLow = 0x090;
inline constexpr std::uint64_t kMmioQueueDriverHigh = 0x094;
inline constexpr std::uint64_t kMmioQueueDeviceLow = 0x0a0;
inline constexpr std::uint64_t kMmioQueueDeviceHigh = 0x0a4;
inline constexpr std::uint64_t kMmioShmLenLow = 0x0b0;
inline constexpr std::uint64_t kMmioShmLenHigh = 0x0b4;
inline constexpr std::uint64_t kMmioShmBaseLow = 0x0b8;
inline constexpr std::uint64_t kMmioShmBaseHigh = 0x0bc;
inline constexpr std::uint64_t kMmioConfigGeneration = 0x0fc;
inline constexpr std::uint64_t kMmioConfig = 0x100;
inline constexpr std::uint64_t kMmioSize = 0x1000;  // of the window that our devices occupy

inline constexpr std::uint32_t kMmioMagic = 0x74726976;  // "virt"
inline constexpr std::uint32_t kMmioVersionModern = 2;
inline constexpr std::uint32_t kMmioVendor = 0x2042534d;  // "MSB "
inline constexpr std::uint32_t kMmioInterruptUsedBuffer = 1;
inline constexpr std::uint32_t kMmioInterruptConfig = 2;

// 5 Device types
inline constexpr std::uint32_t kDeviceNet = 1;
inline constexpr std::uint32_t kDeviceBlk = 2;
inline constexpr std::uint32_t kDeviceEntropy = 4;
inline constexpr std::uint32_t kDeviceBalloon = 5;
inline constexpr std::uint32_t kDeviceVsock = 19;
inline constexpr std::uint32_t kDeviceFs = 26;

// 5.1 Network device
inline constexpr std::uint64_t kNetFeatureChecksum = std::uint64_t{1} << 0;
inline constexpr std::uint64_t kNetFeatureGuestChecksum = std::uint64_t{1} << 1;
inline constexpr std::uint64_t kNetFeatureMtu = std::uint64_t{1} << 3;
inline constexpr std::uint64_t kNetFeatureMac = std::uint64_t{1} << 5;
inline constexpr std::uint64_t kNetFeatureGuestTso4 = std::uint64_t{1} << 7;
inline constexpr std::uint64_t kNetFeatureGuestTso6 = std::uint64_t{1} << 8;
inline constexpr std::uint64_t kNetFeatureGuestEcn = std::uint64_t{1} << 9;
inline constexpr std::uint64_t kNetFeatureHostTso4 = std::uint64_t{1} << 11;
inline constexpr std::uint64_t kNetFeatureHostTso6 = std::uint64_t{1} << 12;
inline constexpr std::uint64_t kNetFeatureHostEcn = std::uint64_t{1} << 13;
inline constexpr std::uint64_t kNetFeatureMergeableBuffers = std::uint64_t{1} << 15;
inline constexpr std::uint16_t kNetReceiveQueue = 0;
inline constexpr std::uint16_t kNetTransmitQueue = 1;
inline constexpr std::uint8_t kNetHeaderNeedsChecksum = 1;
inline constexpr std::uint8_t kNetHeaderDataValid = 2;
inline constexpr std::uint8_t kNetGsoNone = 0;
inline constexpr std::uint8_t kNetGsoTcp4 = 1;
inline constexpr std::uint8_t kNetGsoTcp6 = 4;
inline constexpr std::uint8_t kNetGsoEcn = 0x80;
struct NetHeader {  // 5.1.6
  std::uint8_t flags;
  std::uint8_t gso_type;
  std::uint16_t header_length;  // of the frame's headers, a hint
  std::uint16_t gso_size;
  std::uint16_t checksum_start;   // bytes into the frame
  std::uint16_t checksum_offset;  // from there
  std::uint16_t buffers;          // received frames only
};
static_assert(sizeof(NetHeader) == 12);
struct [[gnu::packed]] NetConfig {  // 5.1.4, without the fields of features that are not offered
  std::uint8_t mac[6];
  std::uint16_t status;
  std::uint16_t max_virtqueue_pairs;
  std::uint16_t mtu;
};
static_assert(sizeof(NetConfig) == 12);

// 5.2 Block device
inline constexpr std::uint64_t kBlkFeatureSegMax = std::uint64_t{1} << 2;
inline constexpr std::uint64_t kBlkFeatureReadOnly = std::uint64_t{1} << 5;
inline constexpr std::uint64_t kBlkFeatureBlockSize = std::uint64_t{1} << 6;
inline constexpr std::uint64_t kBlkFeatureFlush = std::uint64_t{1} << 9;
inline constexpr std::uint64_t kBlkFeatureTopology = std::uint64_t{1} << 10;
inline constexpr std::uint64_t kBlkFeatureDiscard = std::uint64_t{1} << 13;
inline constexpr std::uint64_t kBlkFeatureWriteZeroes = std::uint64_t{1} << 14;
inline constexpr std::uint64_t kBlkSectorSize = 512;  // of every sector number, whatever the block
enum class BlkType : std::uint32_t {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};
enum class BlkStatus : std::uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
struct BlkRequestHeader {
  BlkType type;
  std::uint32_t reserved;
  std::uint64_t sector;
};
static_assert(sizeof(BlkRequestHeader) == 16);
struct BlkRange {  // of a discard or of zeroes
  std::uint64_t sector;
  std::uint32_t sectors;
  std::uint32_t flags;
};
static_assert(sizeof(BlkRange) == 16);
inline constexpr std::uint32_t kBlkRangeUnmap = 1;
inline constexpr std::size_t kBlkIdSize = 20;
struct [[gnu::packed]] BlkConfig {
  std::uint64_t capacity;  // sectors
  std::uint32_t size_max;
  std::uint32_t seg_max;
  std::uint16_t cylinders;
  std::uint8_t heads;
  std::uint8_t sectors;
  std::uint32_t blk_size;
  std::uint8_t physical_block_exp;
  std::uint8_t alignment_offset;
  std::uint16_t min_io_size;
  std::uint32_t opt_io_size;
  std::uint8_t writeback;
  std::uint8_t unused0;
  std::uint16_t num_queues;
  std::uint32_t max_discard_sectors;
  std::uint32_t max_discard_seg;
  std::uint32_t discard_sector_alignment;
  std::uint32_t max_write_zeroes_sectors;
  std::uint32_t max_write_zeroes_seg;
  std::uint8_t write_zeroes_may_unmap;
  std::uint8_t unused1[3];
};
static_assert(sizeof(BlkConfig) == 60);

// 5.4 Entropy device
inline constexpr std::uint16_t kEntropyRequestQueue = 0;

// 5.5 Traditional memory balloon device
inline constexpr std::uint64_t kBalloonFeatureStats = std::uint64_t{1} << 1;
inline constexpr std::uint64_t kBalloonFeatureDeflateOnOom = std::uint64_t{1} << 2;
inline constexpr std::uint64_t kBalloonFeatureReporting = std::uint64_t{1} << 5;
inline constexpr std::uint16_t kBalloonInflateQueue = 0;
inline constexpr std::uint16_t kBalloonDeflateQueue = 1;
inline constexpr std::uint16_t kBalloonStatsQueue = 2;
inline constexpr std::uint64_t kBalloonPageSize = 4096;  // bytes, whatever the guest's is
struct BalloonConfig {  // 5.5.4, without the fields of features that are not offered
  std::uint32_t num_pages;
  std::uint32_t actual;
};
static_assert(sizeof(BalloonConfig) == 8);
enum class BalloonStatTag : std::uint16_t {  // 5.5.6.4
  kSwapIn = 0,
  kSwapOut = 1,
  kMajorFaults = 2,
  kMinorFaults = 3,
  kFreeMemory = 4,
  kTotalMemory = 5,
  kAvailableMemory = 6,
  kDiskCaches = 7,
  kHugetlbAllocations = 8,
  kHugetlbFailures = 9,
};
struct [[gnu::packed]] BalloonStat {  // 5.5.6.3
  BalloonStatTag tag;
  std::uint64_t value;
};
static_assert(sizeof(BalloonStat) == 10);

// 5.10 Socket device
inline constexpr std::uint64_t kVsockHostCid = 2;
inline constexpr std::uint16_t kVsockRxQueue = 0;
inline constexpr std::uint16_t kVsockTxQueue = 1;
inline constexpr std::uint16_t kVsockEventQueue = 2;
inline constexpr std::uint16_t kVsockTypeStream = 1;
enum class VsockOp : std::uint16_t {
  kInvalid = 0,
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kReadWrite = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};
inline constexpr std::uint32_t kVsockShutdownReceive = 1;
inline constexpr std::uint32_t kVsockShutdownSend = 2;
struct [[gnu::packed]] VsockHeader {
  std::uint64_t src_cid;
  std::uint64_t dst_cid;
  std::uint32_t src_port;
  std::uint32_t dst_port;
  std::uint32_t length;
  std::uint16_t type;
  VsockOp op;
  std::uint32_t flags;
  std::uint32_t buffer_allocation;
  std::uint32_t forward_count;
};
static_assert(sizeof(VsockHeader) == 44);

// 5.11 File system device
inline constexpr std::uint16_t kFsHighPriorityQueue = 0;
inline constexpr std::uint16_t kFsFirstRequestQueue = 1;
inline constexpr std::size_t kFsTagSize = 36;
struct FsConfig {
  char tag[kFsTagSize];
  std::uint32_t request_queues;
};
static_assert(sizeof(FsConfig) == 40);

}  // namespace msb::virtio
