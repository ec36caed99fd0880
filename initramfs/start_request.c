/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/start_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/msb_exec.h"

static bool check_start(const struct msb_start* start, struct failure* failure) {
  if ((start->flags & ~MSB_START_CREATE_DIRECTORY) != 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: unknown flags 0x%x", start->flags);
  }
  if (start->reserved != 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: the reserved field is not 0");
  }
  if (start->arguments == 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: no arguments");
  }
  /* setresuid(2) and setresgid(2) take -1 for "leave it as it is": it is nobody's number. */
  if (start->user == UINT32_MAX || start->group == UINT32_MAX) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: %u is not a user or group", UINT32_MAX);
  }
  if ((uint64_t)start->arguments + start->variables > START_STRINGS_MAX) {
    return fail(failure, MSB_STAGE_REQUEST, E2BIG, "START: more than %u arguments and variables",
                START_STRINGS_MAX);
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

static bool take_strings(char** next, char* end, char** strings, uint32_t count,
                         struct failure* failure) {
  for (uint32_t i = 0; i < count; i++) {
    strings[i] = take_string(next, end);
    if (strings[i] == NULL) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: fewer strings than announced");
    }
  }
  strings[count] = NULL;
  return true;
}

static bool check_strings(const struct start_request* request, struct failure* failure) {
  if (request->directory[0] != '/') {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: the working directory is not absolute");
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
  struct msb_start start;
  if (length < sizeof start) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: shorter than its fixed part");
  }
  memcpy(&start, payload, sizeof start);
  if (!check_start(&start, failure)) return false;

  request->flags = start.flags;
  request->user = start.user;
  request->group = start.group;
  request->arguments = calloc((size_t)start.arguments + start.variables + 2, sizeof(char*));
  if (request->arguments == NULL) {
    return fail(failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for the arguments");
  }
  request->variables = request->arguments + start.arguments + 1;

  char* next = (char*)payload + sizeof start;
  char* end = (char*)payload + length;
  request->directory = take_string(&next, end);
  bool parsed = request->directory != NULL ||
                fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: no working directory");
  parsed = parsed && take_strings(&next, end, request->arguments, start.arguments, failure) &&
           take_strings(&next, end, request->variables, start.variables, failure);
  if (parsed && next != end) {
    parsed = fail(failure, MSB_STAGE_REQUEST, EINVAL, "START: bytes after the last string");
  }
  if (parsed && check_strings(request, failure)) return true;
  start_request_free(request);
  return false;
}

void start_request_free(struct start_request* request) {
  free(request->arguments);
  memset(request, 0, sizeof *request);
}
