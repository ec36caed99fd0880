// SPDX-License-Identifier: Apache-2.0
// A kernel of its own, without Linux, that attacks the VMM's devices by their registers and rings:
// each attack of hostile-input.md that a guest can make, then the proof that the attacked device
// serves again after a reset. It says what it did on the serial port, a line each, and ends by a
// triple fault. Started as the 64-bit boot protocol says, with the first GiB mapped; disk-0 (8 MiB,
// pattern of the sector's number in each 8 bytes) is the third device.

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// --- the machine ---

#define WINDOWS 0xd0000000UL
#define DISK (WINDOWS + 2 * 0x1000)
#define RAM_END (64UL << 20)

static u8 stack[65536] __attribute__((aligned(16), used));

__asm__(
    ".section .text.start\n.global _start\n_start:\n"
    "  lea stack+65536(%rip), %rsp\n  xor %ebp, %ebp\n  call attack_all\n"
    "  lidt no_table(%rip)\n  ud2\n"
    ".section .rodata\nno_table: .word 0\n .quad 0\n.text\n");

static void out8(u16 port, u8 value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void say(const char* text) {
  for (; *text; text++) out8(0x3f8, (u8)*text);
}

static void say_number(u64 number) {
  char digits[24];
  size_t at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  say(digits + at);
}

static void end(void) {
  static const u8 none[10];
  __asm__ volatile("lidt (%0)\n  ud2" : : "r"(none));
  __builtin_unreachable();
}

#define REQUIRE(condition)                  \
  do {                                      \
    if (!(condition)) {                     \
      say("FAILED: " #condition ", line "); \
      say_number(__LINE__);                 \
      say("\n");                            \
      end();                                \
    }                                       \
  } while (0)

// The fourth GiB, where the devices are: 512 pages of 2 MiB.
static u64 device_pages[512] __attribute__((aligned(4096)));

static void map_devices(void) {
  u64 cr3;
  __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
  u64* level4 = (u64*)(cr3 & ~0xfffUL);
  u64* level3 = (u64*)(level4[0] & 0xffffffffff000UL);
  for (u64 i = 0; i < 512; i++) device_pages[i] = (3UL << 30) + (i << 21) + 0x83;
  level3[3] = (u64)device_pages | 3;
  __asm__ volatile("mov %0, %%cr3" : : "r"(cr3) : "memory");
}

static u32 next_random(u32* state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}
static u32 random_state = 12345;
static u32 random32(void) {
  return next_random(&random_state);
}

// --- the other processors ---

#define OTHERS 3
#define START_PAGE 0x10UL  // conventional memory that nothing else uses; below the command line
#define LOCAL_APIC 0xfee00000UL
enum { InterruptCommand = 0x300 };
// To all others (Intel SDM volume 3, 11.6.1): INIT, and a start at a page.
enum { InitOthers = 0xc4500, StartOthers = 0xc4600 };

static volatile u32 others_started, others_stopped, others_stop;
static u8 other_stacks[OTHERS][8192] __attribute__((aligned(16), used));

// From real mode into long mode, on the page tables of the first processor.
__asm__(
    ".section .rodata\n.code16\nother_start:\n"
    "  cli\n  mov %cs, %ax\n  mov %ax, %ds\n"
    "  lgdtl other_table_at - other_start\n"
    "  mov $0x20, %eax\n  mov %eax, %cr4\n"
    "  mov other_cr3 - other_start, %eax\n  mov %eax, %cr3\n"
    "  mov $0xc0000080, %ecx\n  rdmsr\n  or $0x100, %eax\n  wrmsr\n"
    "  mov $0x80000011, %eax\n  mov %eax, %cr0\n"
    "  ljmpl $8, $(0x10000 + other_long - other_start)\n"
    ".code64\nother_long:\n"
    "  mov $1, %eax\n  lock xadd %eax, others_numbered\n"
    "  mov %eax, %edi\n  inc %eax\n  shl $13, %eax\n"
    "  lea other_stacks(%rax), %rsp\n  mov $disturb, %rax\n  call *%rax\n"
    "1: hlt\n  jmp 1b\n"
    ".align 8\nother_table: .quad 0, 0x00209a0000000000\n"
    "other_table_at: .word 15\n  .long 0x10000 + other_table - other_start\n"
    "other_cr3: .long 0\nother_end:\n.text\n");
extern const u8 other_start[], other_cr3[], other_end[];
static volatile u32 others_numbered __attribute__((used));

// --- registers (virtio 1.2, 4.2.2) ---

enum {
  DeviceFeaturesSel = 0x14,
  DriverFeatures = 0x20,
  DriverFeaturesSel = 0x24,
  QueueSel = 0x30,
  QueueSizeMax = 0x34,
  QueueSize = 0x38,
  QueueReady = 0x44,
  QueueNotify = 0x50,
  InterruptStatus = 0x60,
  InterruptAck = 0x64,
  Status = 0x70,
  QueueDesc = 0x80,
  QueueDriver = 0x90,
  QueueDevice = 0xa0,
  Config = 0x100,
};
enum { Acknowledge = 1, Driver = 2, DriverOk = 4, FeaturesOk = 8, NeedsReset = 64, Failed = 128 };
enum { IndirectDescriptors = 28, EventIndex = 29, Version1 = 32 };

static volatile u32* reg(u64 device, u32 offset) {
  return (volatile u32*)(device + offset);
}
static u32 get(u64 device, u32 offset) {
  return *reg(device, offset);
}
static void put(u64 device, u32 offset, u32 value) {
  *reg(device, offset) = value;
}
static void put64(u64 device, u32 offset, u64 value) {
  put(device, offset, (u32)value);
  put(device, offset + 4, (u32)(value >> 32));
}

// --- the disk's queue ---

#define SIZE 8
struct descriptor {
  u64 address;
  u32 length;
  u16 flags, next;
};
enum { Next = 1, Write = 2, Indirect = 4 };
static struct descriptor table[SIZE] __attribute__((aligned(4096)));
static struct {
  u16 flags, index, ring[SIZE], used_event;
} available __attribute__((aligned(4096)));
static struct {
  u16 flags, index;
  struct {
    u32 id, length;
  } ring[SIZE];
  u16 available_event;
} used __attribute__((aligned(4096)));

static struct {
  u32 type, reserved;
  u64 sector;
} header;
static u8 data[8192] __attribute__((aligned(4096)));
static u8 status;

static void negotiate(u64 features) {
  put(DISK, Status, 0);
  put(DISK, Status, Acknowledge);
  put(DISK, Status, Acknowledge | Driver);
  put(DISK, DriverFeaturesSel, 0);
  put(DISK, DriverFeatures, (u32)features);
  put(DISK, DriverFeaturesSel, 1);
  put(DISK, DriverFeatures, (u32)(features >> 32));
  put(DISK, Status, Acknowledge | Driver | FeaturesOk);
}

static void set_queue(u32 size, u64 desc, u64 driver, u64 device) {
  put(DISK, QueueSel, 0);
  put(DISK, QueueSize, size);
  put64(DISK, QueueDesc, desc);
  put64(DISK, QueueDriver, driver);
  put64(DISK, QueueDevice, device);
  put(DISK, QueueReady, 1);
}

static void start_with(u64 features) {
  __builtin_memset(table, 0, sizeof table);
  __builtin_memset(&available, 0, sizeof available);
  __builtin_memset(&used, 0, sizeof used);
  put(DISK, Status, 0);
  REQUIRE(get(DISK, Status) == 0);
  negotiate(features);
  REQUIRE(get(DISK, Status) == (Acknowledge | Driver | FeaturesOk));
  set_queue(SIZE, (u64)table, (u64)&available, (u64)&used);
  REQUIRE(get(DISK, QueueReady) == 1);
  put(DISK, Status, Acknowledge | Driver | FeaturesOk | DriverOk);
}
static void start(void) {
  start_with((1UL << Version1) | (1UL << IndirectDescriptors));
}

static void offer(u16 head) {
  available.ring[available.index % SIZE] = head;
  __atomic_store_n(&available.index, (u16)(available.index + 1), __ATOMIC_SEQ_CST);
}
static void kick(void) {
  put(DISK, QueueNotify, 0);
}

// Waits for the device, which works while this processor does: whether `count` chains are back, or
// it wants a reset.
static int wait_used(u16 count) {
  for (u64 turn = 0; turn < 400000000; turn++) {
    if (__atomic_load_n(&used.index, __ATOMIC_ACQUIRE) == count) return 1;
    if (turn % 1024 == 0 && get(DISK, Status) & NeedsReset) return 0;
    __asm__ volatile("pause");
  }
  return 0;
}
static int wait_needs_reset(void) {
  for (u64 turn = 0; turn < 4000000; turn++) {
    if (get(DISK, Status) & NeedsReset) return 1;
    __asm__ volatile("pause");
  }
  return 0;
}

static void request(u32 type, u64 sector, u32 length, u16 data_flags) {
  header.type = type;
  header.sector = sector;
  status = 0xa5;
  table[0] = (struct descriptor){(u64)&header, 16, Next, 1};
  table[1] = (struct descriptor){(u64)data, length, (u16)(Next | data_flags), 2};
  table[2] = (struct descriptor){(u64)&status, 1, Write, 0};
  offer(0);
}

// A good request, on a device that is set up.
static void serves(void) {
  const u16 before = used.index;
  __builtin_memset(data, 0, 512);
  request(0, 3, 512, Write);
  kick();
  REQUIRE(wait_used((u16)(before + 1)));
  REQUIRE(status == 0);
  for (u32 i = 0; i < 64; i++) REQUIRE(((u64*)data)[i] == 3);
}
static void recovers(void) {
  start();
  serves();
}

// --- the attacks, by their numbers in hostile-input.md ---

// 1: selectors beyond what there is, and every register read and written after them.
static void selectors(void) {
  static const u32 values[] = {0, 1, 2, 64, 0x7fffffff, 0x80000000, 0xffffffff};
  for (u32 v = 0; v < sizeof values / sizeof *values; v++) {
    start();
    put(DISK, QueueSel, values[v]);
    put(DISK, QueueNotify, values[v]);
    put(DISK, DeviceFeaturesSel, values[v]);
    put(DISK, DriverFeaturesSel, values[v]);
    for (u32 offset = 0; offset < 0x1000; offset += 4) {
      (void)get(DISK, offset);
      if (offset != Status) put(DISK, offset, values[v]);
    }
    recovers();
  }
}

// 2: queues of impossible sizes, and changes behind the device's back.
static void queue_sizes(void) {
  static const u32 sizes[] = {0,    3,     5,     6,     7,          257,       512,
                              1024, 32768, 32769, 65536, 0x80000000, 0xffffffff};
  for (u32 i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    negotiate(1UL << Version1);
    set_queue(sizes[i], (u64)table, (u64)&available, (u64)&used);
    REQUIRE(get(DISK, QueueReady) == 0);
    put(DISK, Status, Acknowledge | Driver | FeaturesOk | DriverOk);
    kick();
    REQUIRE(wait_needs_reset());
  }
  start();
  set_queue(4, 0, 0, 0);
  put(DISK, QueueReady, 0);
  put64(DISK, QueueDesc, ~0UL);
  serves();
  recovers();
}

// 3, 7: rings that are not aligned, not in RAM, at its end, or wrap around.
static void ring_places(void) {
  static const u64 places[] = {1,       8,           RAM_END - 8, RAM_END,    DISK,
                               WINDOWS, 0xc0000000,  0xfee00000,  0xffffffff, 0x100000000,
                               ~0UL,    ~0UL - 4095, 1UL << 63};
  for (u32 i = 0; i < sizeof places / sizeof *places; i++) {
    for (int part = 0; part < 3; part++) {
      negotiate(1UL << Version1);
      set_queue(256, part == 0 ? places[i] : (u64)table, part == 1 ? places[i] : (u64)&available,
                part == 2 ? places[i] : (u64)&used);
      const u32 ready = get(DISK, QueueReady);
      put(DISK, Status, Acknowledge | Driver | FeaturesOk | DriverOk);
      kick();
      // What is aligned and in RAM is the guest's own business: only 8, as a place for the
      // available or used ring.
      REQUIRE(ready == 0 ? wait_needs_reset() : places[i] == 8 && part > 0);
    }
  }
  recovers();
}

// 4, 8: what breaks the ring itself.
static void broken_rings(void) {
  for (int which = 0; which < 7; which++) {
    start();
    serves();
    switch (which) {
      case 0:
        offer(SIZE);
        break;
      case 1:
        offer(0xffff);
        break;
      case 2:
        table[0] = (struct descriptor){(u64)data, 16, Next, SIZE};
        offer(0);
        break;
      case 3:
        table[0] = (struct descriptor){(u64)data, 16, Next, 0};
        offer(0);
        break;
      case 4:
        for (u16 i = 0; i < SIZE; i++)
          table[i] = (struct descriptor){(u64)data, 16, Next, (u16)((i + 1) % SIZE)};
        offer(0);
        break;
      case 5:
        available.index = (u16)(available.index + SIZE + 1);
        break;
      default:
        available.index = (u16)(available.index - 1);
        break;
    }
    kick();
    REQUIRE(wait_needs_reset());
    kick();
    REQUIRE(get(DISK, Status) & NeedsReset);
    recovers();
  }
}

// 5: indirect tables.
static struct descriptor indirect[16] __attribute__((aligned(64)));
static void indirect_tables(void) {
  for (int which = 0; which < 8; which++) {
    start();
    indirect[0] = (struct descriptor){(u64)data, 16, 0, 0};
    table[0] = (struct descriptor){(u64)indirect, 16, Indirect, 0};
    int broken = 1;
    switch (which) {
      case 0:
        indirect[0].flags = Indirect;
        break;
      case 1:
        table[0].length = 0;
        break;
      case 2:
        table[0].length = 17;
        break;
      case 3:
        table[0].length = 0xfffffff0;
        break;
      case 4:
        table[0].flags = Indirect | Next;
        break;
      case 5:
        indirect[0] = (struct descriptor){(u64)data, 16, Next, 5};
        break;
      case 6:
        table[0].address = RAM_END - 8;
        broken = 0;
        break;
      default:
        table[0].address = DISK;
        broken = 0;
        break;
    }
    offer(0);
    kick();
    if (broken) {
      REQUIRE(wait_needs_reset());
    } else {
      REQUIRE(wait_used(1));
      REQUIRE(used.ring[0].length == 0);
      serves();
    }
    recovers();
  }
}

// 9, 11: bad requests, more than there are entries; all come back, and a good one is served.
static void bad_requests(void) {
  start();
  u16 count = 0;
  for (u32 i = 0; i < 5 * SIZE; i++) {
    switch (i % 5) {
      case 0:
        table[0] = (struct descriptor){(u64)&header, 16, 0, 0};
        break;  // no status
      case 1:
        table[0] = (struct descriptor){(u64)&header, 3, 0, 0};
        break;  // half a header
      case 2:
        table[0] = (struct descriptor){RAM_END - 4, 16, Write, 0};
        break;  // over the end
      case 3:
        table[0] = (struct descriptor){DISK, 16, 0, 0};
        break;  // its own registers
      default:
        table[0] = (struct descriptor){(u64)&header, 0, Write, 0};
        break;  // nothing at all
    }
    offer(0);
    kick();
    REQUIRE(wait_used(++count));
  }
  serves();
}

// 12: sectors beyond the disk.
static void sectors(void) {
  static const u64 beyond[] = {16384,           16385, 1UL << 32, 1UL << 54, 1UL << 55,
                               (1UL << 55) + 3, ~0UL,  ~0UL - 1,  1UL << 63};
  start();
  u16 count = 0;
  for (u32 i = 0; i < sizeof beyond / sizeof *beyond; i++) {
    for (u32 type = 0; type < 2; type++) {
      request(type, beyond[i], 512, type == 0 ? Write : 0);
      kick();
      REQUIRE(wait_used(++count));
      REQUIRE(status == 1);
    }
  }
  request(0, 16383, 1024, Write);
  kick();
  REQUIRE(wait_used(++count));
  REQUIRE(status == 1);
  serves();
}

// 13, 15: data buffers that are no memory, while others are served.
static void buffers(void) {
  static const u64 places[] = {RAM_END,    RAM_END - 256, 0xc0000000, DISK,
                               0xfee00000, ~0UL - 255,    1UL << 52};
  start();
  u16 count = 0;
  for (u32 i = 0; i < sizeof places / sizeof *places; i++) {
    request(0, 0, 512, Write);
    table[1].address = places[i];
    kick();
    REQUIRE(wait_used(++count));
    serves();
    count++;
  }
}

// 23: accesses of other widths, at all offsets, over the windows' ends.
static void widths(void) {
  start();
  for (u64 at = DISK; at < DISK + 0x1000; at++) {
    (void)*(volatile u8*)at;
    (void)*(volatile u16*)at;
    (void)*(volatile u64*)at;
    if (at < DISK + Status - 8 || at >= DISK + Status + 8) {
      *(volatile u8*)at = 0xff;
      *(volatile u16*)at = 0xffff;
    }
  }
  for (u64 at = WINDOWS + 0x1000 - 8; at < WINDOWS + 0x1000 + 8; at++) (void)*(volatile u64*)at;
  for (u64 at = WINDOWS + 64 * 0x1000 - 8; at < WINDOWS + 64 * 0x1000 + 8; at++)
    *(volatile u32*)at = 1;
  recovers();
}

// 24: the status register out of order, and kicks when there is nothing to kick.
static void states(void) {
  put(DISK, Status, 0);
  kick();
  put(DISK, Status, DriverOk);
  REQUIRE(!(get(DISK, Status) & DriverOk));
  kick();
  put(DISK, Status, Acknowledge | Driver | FeaturesOk);  // without VERSION_1
  REQUIRE(!(get(DISK, Status) & FeaturesOk));
  put(DISK, Status, Acknowledge | Driver | FeaturesOk | DriverOk);
  REQUIRE(!(get(DISK, Status) & DriverOk));
  start();
  put(DISK, Status, Acknowledge);  // bits cannot be taken back
  REQUIRE(get(DISK, Status) == (Acknowledge | Driver | FeaturesOk | DriverOk));
  put(DISK, DriverFeaturesSel, 1);
  put(DISK, DriverFeatures, 0);
  serves();
  for (int i = 0; i < 100; i++) {
    request(0, 1, 4096, Write);
    kick();
    put(DISK, Status, 0);
    REQUIRE(get(DISK, Status) == 0);
    kick();
    start();
  }
  recovers();
}

// Anything, anywhere, in any order.
static void walk(void) {
  for (u32 round = 0; round < 400; round++) {
    start_with((1UL << Version1) | ((u64)(random32() & 3) << IndirectDescriptors));
    for (u32 step = 0; step < 20; step++) {
      const u32 choice = random32() % 8;
      if (choice == 0) {
        put(DISK, (random32() % 64) * 4, random32() % 3 ? random32() % 16 : random32());
      } else if (choice == 1) {
        kick();
      } else if (choice == 2) {
        available.index = (u16)(available.index + random32() % 3);
      } else {
        struct descriptor* one =
            random32() % 3 ? &table[random32() % SIZE] : &indirect[random32() % 16];
        one->address =
            random32() % 4 ? (u64)data + random32() % 64 : (u64)random32() << (random32() % 32);
        one->length = random32() % 4 ? random32() % 600 : random32();
        one->flags = (u16)(random32() % 8);
        one->next = (u16)(random32() % (SIZE + 1));
        available.ring[random32() % SIZE] = (u16)(random32() % (SIZE + 1));
        header.type = random32() % 16;
        header.sector = random32() % 20;
        // Only reads of the disk: the test looks at it afterwards.
        if (header.type == 1 || header.type == 11 || header.type == 13) header.type = 0;
      }
    }
  }
  recovers();
}

// 6: what another processor does meanwhile. It changes what a request says while the device reads
// it, kicks, and touches all registers but those that say where memory is.
__attribute__((used)) static void disturb(u32 number) {
  u32 state = 99 + number;
  __atomic_fetch_add(&others_started, 1, __ATOMIC_SEQ_CST);
  while (!others_stop) {
    const u32 what = next_random(&state);
    const u32 value = next_random(&state);
    switch (what % 8) {
      case 0:
        put(DISK, QueueNotify, value % 3);
        break;
      case 1:
        put(DISK, (value % 32) * 4, what >> 8);  // selectors, features, the queue
        break;
      case 2:
        (void)get(DISK, (value % 1024) * 4);
        break;
      case 3:
        put(DISK, what & 256 ? InterruptAck : QueueReady, value);
        break;
      case 4:
        header.type = value & 1 ? 8 : value % 3 * 4;  // reads, flushes, what there is not
        header.sector = what & 256 ? value % 20000 : ~0UL - value;
        break;
      case 5:
        table[value % SIZE].length = what & 256 ? value >> 16 : value;
        break;
      case 6:
        table[value % SIZE].flags = (u16)(what >> 8);
        table[value % SIZE].next = (u16)(what >> 16);
        break;
      default:
        available.ring[value % SIZE] = (u16)(what >> 8) % (SIZE + 1);
        break;
    }
  }
  __atomic_fetch_add(&others_stopped, 1, __ATOMIC_SEQ_CST);
}

static int all_of(volatile u32* count) {
  for (u64 turn = 0; turn < 400000000 && *count < OTHERS; turn++) __asm__ volatile("pause");
  return *count == OTHERS;
}

static void processors(void) {
  volatile u8* page = (volatile u8*)(START_PAGE << 12);
  for (u64 i = 0; i < (u64)(other_end - other_start); i++) page[i] = other_start[i];
  u64 cr3;
  __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
  *(volatile u32*)(page + (other_cr3 - other_start)) = (u32)cr3;
  put(LOCAL_APIC, InterruptCommand, InitOthers);
  for (u32 i = 0; i < 100000; i++) __asm__ volatile("pause");
  put(LOCAL_APIC, InterruptCommand, StartOthers | START_PAGE);
  REQUIRE(all_of(&others_started));
  for (u32 round = 0; round < 100; round++) {
    // As start() does, but for what it requires: the others are at the same registers.
    negotiate((1UL << Version1) | (1UL << IndirectDescriptors));
    set_queue(SIZE, (u64)table, (u64)&available, (u64)&used);
    __atomic_store_n(&available.index, 0, __ATOMIC_SEQ_CST);
    put(DISK, Status, Acknowledge | Driver | FeaturesOk | DriverOk);
    for (u32 i = 0; i < 16; i++) {
      request(0, random32() % 16384, random32() % 8192, Write);
      kick();
    }
  }
  others_stop = 1;
  REQUIRE(all_of(&others_stopped));
  recovers();
}

static const struct {
  const char* name;
  void (*run)(void);
} attacks[] = {
    {"selectors", selectors},
    {"queue sizes", queue_sizes},
    {"ring places", ring_places},
    {"broken rings", broken_rings},
    {"indirect tables", indirect_tables},
    {"bad requests", bad_requests},
    {"sectors", sectors},
    {"buffers", buffers},
    {"widths", widths},
    {"states", states},
    {"walk", walk},
    {"processors", processors},
};

void attack_all(void) {
  map_devices();
  start();
  serves();
  for (u32 i = 0; i < sizeof attacks / sizeof *attacks; i++) {
    attacks[i].run();
    say("survived ");
    say(attacks[i].name);
    say("\n");
  }
  say("done\n");
}
