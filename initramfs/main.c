/* SPDX-License-Identifier: Apache-2.0 */
/* PID 1: boots the machine into the image's root, runs the agent, ends the machine. */
#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "initramfs/agent.h"
#include "initramfs/boot_config.h"
#include "initramfs/forwards.h"
#include "initramfs/mounts.h"
#include "initramfs/name_files.h"
#include "initramfs/namespace.h"
#include "initramfs/network.h"
#include "initramfs/oom.h"
#include "initramfs/proc.h"
#include "initramfs/process_limit.h"
#include "initramfs/root.h"
#include "initramfs/shares.h"
#include "initramfs/system.h"
#include "initramfs/upper_disk.h"
#include "initramfs/vsock.h"

/* How long programs may take to die of SIGKILL, and the host to answer BYE. */
#define END_TIMEOUT_MS 2000

static struct boot_config config;
static struct forwards forwards;

/* From the initramfs to a machine that can run programs. The order is that of dependencies; waiting
 * comes last. */
static bool boot(struct namespace_init* init, struct failure* failure) {
  if (!root_open_host(&config, failure) ||
      (config.processes != 0 && !process_limit_set(config.processes, failure)) ||
      !root_enter(&config, failure) || !root_make_volumes(&config, failure) ||
      !namespace_start(init, failure) || !mount_system(failure) ||
      !shares_mount(&config, failure)) {
    return false;
  }
  system_start_loopback();
  /* An image with something strange in its /etc starts nevertheless. */
  if (!name_files_write(&config, failure)) system_log(failure);
  if (!network_start(&config.network.card, failure) ||
      !forwards_open(&forwards, &config.network, vsock_connect, failure) ||
      !namespace_wait_ready(init, failure)) {
    return false;
  }
  proc_keep();
  upper_disk_write_back_soon();
  return true;
}

static enum msb_bye_reason run(int listener, int control, const struct namespace_init* init,
                               struct failure* failure) {
  struct agent_options options = {
      .control = control,
      .listener = listener,
      .kmsg = oom_open(),
      .is_host = vsock_is_host,
      .namespace_init = init->pid,
      .card = &config.network.card,
      .forwards = &forwards,
  };
  control_send_hello(control);
  return agent_run(&options, failure);
}

/* Without the host there is nobody to work for. */
static _Noreturn void end_without_host(const char* step) {
  struct failure failure;
  fail(&failure, MSB_STAGE_BOOT, errno, "cannot %s", step);
  system_log(&failure);
  system_reset();
}

int main(void) {
  system_prepare_process();
  /* Begun first, so that the host takes the connection while the root is mounted. */
  int listener = vsock_listen();
  if (listener < 0) end_without_host("listen on vsock");
  int control = vsock_connect(MSB_PORT_CONTROL);
  if (control < 0) end_without_host("connect to the host on vsock");

  struct failure failure;
  struct namespace_init init = {.pid = -1, .report = -1};
  bool booted = boot(&init, &failure);
  if (!booted) system_log(&failure);
  if (!vsock_wait_connected(control)) end_without_host("connect to the host on vsock");

  enum msb_bye_reason reason = MSB_BYE_FAILED;
  if (booted) reason = run(listener, control, &init, &failure);
  reason = namespace_end(&init, END_TIMEOUT_MS, reason);
  /* That of the disk first: shares are on file systems of the host's, which may hang. */
  upper_disk_freeze();
  sync();
  if (reason == MSB_BYE_FAILED) control_send_failed(control, &failure);
  control_end(control, reason, END_TIMEOUT_MS);
  system_reset();
}
