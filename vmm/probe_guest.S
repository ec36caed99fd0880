// SPDX-License-Identifier: Apache-2.0
// The guest that probe.cpp runs: 64-bit code that is copied into guest memory, never executed here. It holds no
// address, so it runs wherever it is mapped; probe.cpp makes the page tables, descriptor tables and MSRs.
//
// What the host gives at entry (msb_probe_guest):
//   rdi  the step to begin with, counted from 0
//   rsp  the top of the ring 0 stack, which is TSS.RSP0 too
//   r12  where msb_probe_user is mapped for ring 3
//   r13  the top of the ring 3 stack
// r12, r13 and r14 (= rsp) stay as they are; r15 is where ring 0 goes on after ring 3. Steps share nothing else.

// The ports it speaks on, selectors and the order of the steps are probe.cpp's too.
#define PORT_STEP 0x80       // al: the step that begins; the port of POST codes
#define PORT_WRONG 0x81      // the step's instruction ran and its result is wrong
#define PORT_EXCEPTION 0x82  // al: vector, rbx: error code, rcx: RIP, rdx: CS
#define PORT_DONE 0x83       // the steps are over
#define PORT_FEATURES 0x84   // eax: ECX of CPUID leaf 1, as this ring sees it
#define KERNEL_CS 0x10
#define KERNEL_SS 0x18
#define USER_SS 0x2b
#define USER_CS 0x33

#define USER_FLAGS 0x2  // the bit that is always set; no interrupts, no I/O privilege
#define CR4_OSXSAVE 18
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define FCW_AT_INIT 0x37f  // what KVM gives a new vCPU, as FNINIT does

  // Begins step \number, which is the position of its address in the table of steps.
  .macro step number
.Lstep\number:
  mov $\number, %al
  out %al, $PORT_STEP
  .endm

  // Leaves the step for \next unless bit \bit of \register of CPUID leaf \leaf, subleaf 0, is set.
  .macro need_feature leaf, register, bit, next
  mov $\leaf, %eax
  xor %ecx, %ecx
  cpuid
  bt $\bit, \register
  jnc \next
  .endm

  // Goes to ring 3 at label \target of the ring 3 part, by IRET (Intel SDM vol. 3, 6.14).
  .macro iret_to_user target
  pushq $USER_SS
  push %r13
  pushq $USER_FLAGS
  pushq $USER_CS
  lea (\target - msb_probe_user)(%r12), %rax
  push %rax
  iretq
  .endm

  .section .rodata.msb_probe, "a", @progbits
  .balign 64
  .globl msb_probe_guest, msb_probe_exceptions, msb_probe_breakpoint, msb_probe_invalid_opcode
  .globl msb_probe_syscall, msb_probe_user, msb_probe_guest_end
  .hidden msb_probe_guest, msb_probe_exceptions, msb_probe_breakpoint, msb_probe_invalid_opcode
  .hidden msb_probe_syscall, msb_probe_user, msb_probe_guest_end
  .code64

msb_probe_guest:
  mov %rsp, %r14
  lea .Lsteps(%rip), %rax
  movslq (%rax, %rdi, 4), %rcx
  add %rcx, %rax
  jmp *%rax
.Lsteps:
  .long .Lstep0 - .Lsteps, .Lstep1 - .Lsteps, .Lstep2 - .Lsteps, .Lstep3 - .Lsteps
  .long .Lstep4 - .Lsteps, .Lstep5 - .Lsteps, .Lstep6 - .Lsteps, .Lstep7 - .Lsteps
  .long .Lstep8 - .Lsteps, .Lstep9 - .Lsteps, .Lstep10 - .Lsteps, .Lstep11 - .Lsteps

  // Plain ring 0 code: the stack, a string copy, a locked addition, reloading CR3.
  step 0
  push %r12
  call .Lpop_argument
  cmp %r12, %rax
  jne .Lwrong
  lea .Lscratch(%rip), %rsi
  lea 8(%rsi), %rdi
  movq $0x1234567, (%rsi)
  mov $8, %ecx
  rep movsb
  mov $1, %eax
  lock xadd %rax, -8(%rdi)
  cmp $0x1234567, %rax
  jne .Lwrong
  cmpq $0x1234568, -8(%rdi)
  jne .Lwrong
  mov %cr3, %rax
  mov %rax, %cr3

  // CPUID: what ring 0 sees; ring 3 follows in step 9.
  step 1
  mov $1, %eax
  xor %ecx, %ecx
  cpuid
  mov %ecx, %eax
  out %eax, $PORT_FEATURES

  // RDTSC: time does not run backwards.
  step 2
  rdtsc
  shl $32, %rdx
  lea (%rax, %rdx), %r8
  rdtsc
  shl $32, %rdx
  add %rdx, %rax
  cmp %r8, %rax
  jb .Lwrong

  step 3
  need_feature 1, %ecx, 23, .Lpopcnt_done
  mov $0xf0f, %r8d
  popcnt %r8, %rax
  cmp $8, %rax
  jne .Lwrong
.Lpopcnt_done:

  // LOCK CMPXCHG16B: Linux's page allocator lives on it.
  step 4
  need_feature 1, %ecx, 13, .Lcmpxchg16b_done
  lea .Lscratch(%rip), %rdi
  movq $1, (%rdi)
  movq $2, 8(%rdi)
  mov $1, %eax
  mov $2, %edx
  mov $3, %ebx
  mov $4, %ecx
  lock cmpxchg16b (%rdi)
  jne .Lwrong
  cmpq $3, (%rdi)
  jne .Lwrong
  cmpq $4, 8(%rdi)
  jne .Lwrong
.Lcmpxchg16b_done:

  // XSAVE and XRSTOR (Intel SDM vol. 1, chapter 13) of the x87 state, which XCR0 always has. The host has set
  // CR4.OSXSAVE if the guest has XSAVE. XSETBV is left out: QEMU before 8.2 emulates SVM without its intercept, so that
  // KVM inside loses the guest's XCR0 at the next exit, and Linux runs there all the same.
  step 5
  mov %cr4, %rax
  bt $CR4_OSXSAVE, %rax
  jnc .Lxsave_done
  lea .Lxsave_area(%rip), %rdi
  mov $1, %eax
  xor %edx, %edx
  xsave64 (%rdi)
  cmpw $FCW_AT_INIT, (%rdi)
  jne .Lwrong
  mov $1, %eax
  xor %edx, %edx
  xrstor64 (%rdi)
.Lxsave_done:

  // STAC and CLAC set and clear RFLAGS.AC (bit 18).
  step 6
  need_feature 7, %ebx, 20, .Lsmap_done
  stac
  pushfq
  pop %rax
  bt $18, %eax
  jnc .Lwrong
  clac
  pushfq
  pop %rax
  bt $18, %eax
  jc .Lwrong
.Lsmap_done:

  // INT3 through the IDT and back; Linux patches its own code with it.
  step 7
  movl $0, .Lbreakpoints(%rip)
  int3
  cmpl $1, .Lbreakpoints(%rip)
  jne .Lwrong

  // SWAPGS and the MSRs behind it, which begin and end each system call of Linux.
  step 8
  mov $MSR_GS_BASE, %ecx
  xor %edx, %edx
  mov $0x1000, %eax
  wrmsr
  mov $MSR_KERNEL_GS_BASE, %ecx
  mov $0x2000, %eax
  wrmsr
  swapgs
  mov $MSR_GS_BASE, %ecx
  rdmsr
  cmp $0x2000, %eax
  jne .Lwrong
  mov $MSR_KERNEL_GS_BASE, %ecx
  rdmsr
  cmp $0x1000, %eax
  jne .Lwrong

  // IRET to ring 3, and back by an exception. Ring 3's CPUID comes along in eax.
  step 9
  lea .Lring3_done(%rip), %r15
  iret_to_user .Luser_fault
.Lring3_done:
  out %eax, $PORT_FEATURES

  // SYSRET to ring 3, and back by an exception.
  step 10
  lea .Lsysret_done(%rip), %r15
  lea (.Luser_fault - msb_probe_user)(%r12), %rcx
  mov $USER_FLAGS, %r11d
  mov %r13, %rsp
  sysretq
.Lsysret_done:

  // SYSCALL from ring 3 to msb_probe_syscall in ring 0, SYSRET, and a second one.
  step 11
  lea .Ldone(%rip), %r15
  iret_to_user .Luser_syscall

.Ldone:
  out %al, $PORT_DONE
  jmp .Lstop

  // Takes its argument off the stack and returns it.
.Lpop_argument:
  pop %rcx
  pop %rax
  jmp *%rcx

.Lwrong:
  out %al, $PORT_WRONG
.Lstop:
  hlt
  jmp .Lstop

  // Vector 6. The one that ring 3 causes on purpose leads back to r15 in ring 0, with an empty stack.
msb_probe_invalid_opcode:
  cmpq $USER_CS, 8(%rsp)
  jne .Lunexpected_invalid_opcode
  lea (.Luser_ud2 - msb_probe_user)(%r12), %rcx
  cmp %rcx, (%rsp)
  jne .Lunexpected_invalid_opcode
  cmpq $USER_SS, 32(%rsp)
  jne .Lwrong
  mov %cs, %ecx
  cmp $KERNEL_CS, %ecx
  jne .Lwrong
  mov %r14, %rsp
  jmp *%r15
.Lunexpected_invalid_opcode:
  pushq $0
  pushq $6
  jmp .Lexception

  // LSTAR: edi says which system call it is. CS and SS are loaded from STAR with RPL 0 (Intel SDM vol. 2, SYSCALL).
msb_probe_syscall:
  mov %cs, %eax
  cmp $KERNEL_CS, %eax
  jne .Lwrong
  mov %ss, %eax
  cmp $KERNEL_SS, %eax
  jne .Lwrong
  cmp $2, %edi
  je .Lsecond_syscall
  sysretq
.Lsecond_syscall:
  mov %r14, %rsp
  jmp *%r15

  // Vector 3.
msb_probe_breakpoint:
  cmpq $KERNEL_CS, 8(%rsp)
  jne .Lwrong
  incl .Lbreakpoints(%rip)
  iretq

  // The vectors below 32, two of which have handlers of their own: 16 bytes each. They push an error code where the
  // processor pushes none (Intel SDM vol. 3, table 6-1; AMD APM vol. 2, table 8-1, has 29 and 30).
  .balign 16
msb_probe_exceptions:
  .set vector, 0
  .rept 32
  .balign 16
  .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
  pushq $0
  .endif
  pushq $vector
  jmp .Lexception
  .set vector, vector + 1
  .endr

.Lexception:
  pop %rax
  pop %rbx
  pop %rcx
  pop %rdx
  out %al, $PORT_EXCEPTION
  jmp .Lstop

  .balign 16
.Lscratch:
  .quad 0, 0
.Lbreakpoints:
  .long 0
  .balign 64
.Lxsave_area:
  .zero 512 + 64  // legacy region and header (Intel SDM vol. 1, 13.4)

  // The ring 3 part, mapped apart from the rest.
msb_probe_user:
.Luser_fault:
  mov $1, %eax
  xor %ecx, %ecx
  cpuid
  mov %ecx, %eax
.Luser_ud2:
  ud2
.Luser_syscall:
  mov $1, %edi
  syscall
  mov $2, %edi
  syscall
  ud2
msb_probe_guest_end:

  .section .note.GNU-stack, "", @progbits
