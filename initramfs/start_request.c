/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/start_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define FLAGS_KNOWN                                                                       \
  (MSB_START_CREATE_DIRECTORY | MSB_START_KEEP | MSB_START_TERMINAL | MSB_START_CHANNEL | \
   MSB_START_NO_STDIN)

#define UMASK_MAX 0777u

static bool refuse(struct failure* failure, const char* why) {
  return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: %s", why);
}

static bool check_start(const struct msb_start* start, struct failure* failure) {
  if ((start->flags & ~FLAGS_KNOWN) != 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: unknown flags 0x%x", start->flags);
  }
  if ((start->flags & MSB_START_TERMINAL) != 0 && (start->flags & MSB_START_NO_STDIN) != 0) {
    return refuse(failure, "a terminal without standard input");
  }
  if (start->reserved != 0) return refuse(failure, "the reserved field is not 0");
  if (start->arguments == 0) return refuse(failure, "no arguments");
  if (start->groups > MSB_GROUPS_MAX) return refuse(failure, "too many groups");
  if (start->limits > MSB_LIMITS_MAX) return refuse(failure, "too many limits");
  if (start->umask > UMASK_MAX) return refuse(failure, "the umask has more than permission bits");
  if (start->keep > MSB_KEEP_MAX) return refuse(failure, "more bytes to keep than may be");
  if ((uint64_t)start->arguments + start->variables > START_STRINGS_MAX) {
    return fail(failure, MSB_STAGE_REQUEST, E2BIG, "START: more than %u arguments and variables",
                START_STRINGS_MAX);
  }
  return true;
}

static bool take_limits(char** next, const char* end, struct start_request* request,
                        struct failure* failure) {
  size_t size = request->fixed.limits * sizeof *request->limits;
  if ((size_t)(end - *next) < size) return refuse(failure, "fewer limits than announced");
  memcpy(request->limits, *next, size);
  *next += size;
  for (uint32_t i = 0; i < request->fixed.limits; i++) {
    const struct msb_limit* limit = &request->limits[i];
    if (limit->resource >= RLIM_NLIMITS || limit->reserved != 0 || limit->soft > limit->hard) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL,
                  "START: there can be no such limit of resource %u", limit->resource);
    }
  }
  return true;
}

/* The string at *next, which moves past it; NULL when the payload ends first. */
static char* take_string(char** next, char* end) {
  char* string = *next;
  char* terminator = memchr(string, '\0', (size_t)(end - string));
  if (terminator == NULL) return NULL;
  *next = terminator + 1;
  return string;
}

static bool take_strings(char** next, char* end, char** strings, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    strings[i] = take_string(next, end);
    if (strings[i] == NULL) return false;
  }
  strings[count] = NULL;
  return true;
}

static bool take_all_strings(char* next, char* end, struct start_request* request,
                             struct failure* failure) {
  const struct msb_start* start = &request->fixed;
  if ((request->label = take_string(&next, end)) == NULL ||
      (request->user = take_string(&next, end)) == NULL ||
      (request->directory = take_string(&next, end)) == NULL ||
      !take_strings(&next, end, request->groups, start->groups) ||
      !take_strings(&next, end, request->arguments, start->arguments) ||
      !take_strings(&next, end, request->variables, start->variables)) {
    return refuse(failure, "fewer strings than announced");
  }
  if (next != end) return refuse(failure, "bytes after the last string");
  if (request->directory[0] != '/') {
    return refuse(failure, "the working directory is not absolute");
  }
  for (char** variable = request->variables; *variable != NULL; variable++) {
    if (strchr(*variable, '=') == NULL) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: the variable \"%.64s\" has no '='",
                  *variable);
    }
  }
  return true;
}

bool start_request_parse(uint8_t* payload, size_t length, struct start_request* request,
                         struct failure* failure) {
  memset(request, 0, sizeof *request);
  struct msb_start* start = &request->fixed;
  if (length < sizeof *start) return refuse(failure, "shorter than its fixed part");
  memcpy(start, payload, sizeof *start);
  char* next = (char*)payload + sizeof *start;
  char* end = (char*)payload + length;
  if (!check_start(start, failure) || !take_limits(&next, end, request, failure)) return false;

  /* Three vectors that end with NULL, and a variable more. */
  size_t pointers = (size_t)start->groups + start->arguments + start->variables + 4;
  request->groups = calloc(pointers, sizeof(char*));
  if (request->groups == NULL) {
    return fail(failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for the arguments");
  }
  request->arguments = request->groups + start->groups + 1;
  request->variables = request->arguments + start->arguments + 1;
  if (take_all_strings(next, end, request, failure)) return true;
  start_request_free(request);
  return false;
}

void start_request_free(struct start_request* request) {
  free(request->groups);
  memset(request, 0, sizeof *request);
}
