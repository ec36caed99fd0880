/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Works on files in a directory, as a guest's program, and prints what each kind of work took:
 * "NAME SECONDS" a line.
 *
 * usage: shares_client DIRECTORY SMALL_FILES LARGE_MIB
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES_A_FOLDER 500
#define SMALL_SIZE 1000
#define PIECE (1u << 20)

static int files;
static int large_mib;
static char small[SMALL_SIZE];
static char* piece;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static const char* name(int number) {
  static char text[64];
  snprintf(text, sizeof text, "%d/file-%d", number / FILES_A_FOLDER, number);
  return text;
}

static void make(void) {
  for (int i = 0; i < files; i++) {
    if (i % FILES_A_FOLDER == 0) {
      char folder[16];
      snprintf(folder, sizeof folder, "%d", i / FILES_A_FOLDER);
      if (mkdir(folder, 0755) != 0) err(1, "%s", folder);
    }
    int file = open(name(i), O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (file < 0 || write(file, small, sizeof small) != sizeof small || close(file) != 0) {
      err(1, "%s", name(i));
    }
  }
}

static void look(void) {
  struct stat status;
  for (int i = 0; i < files; i++) {
    if (stat(name(i), &status) != 0 || status.st_size != sizeof small) err(1, "%s", name(i));
  }
}

static void list(void) {
  int seen = 0;
  for (int i = 0; i * FILES_A_FOLDER < files; i++) {
    char folder[16];
    snprintf(folder, sizeof folder, "%d", i);
    DIR* opened = opendir(folder);
    if (opened == NULL) err(1, "%s", folder);
    for (struct dirent* entry; (entry = readdir(opened)) != NULL;) {
      struct stat status;
      if (entry->d_name[0] == '.') continue;
      if (fstatat(dirfd(opened), entry->d_name, &status, 0) != 0) err(1, "%s", entry->d_name);
      seen++;
    }
    closedir(opened);
  }
  if (seen != files) errx(1, "%d files are listed instead of %d", seen, files);
}

static void take(void) {
  char content[SMALL_SIZE + 1];
  for (int i = 0; i < files; i++) {
    int file = open(name(i), O_RDONLY);
    if (file < 0 || read(file, content, sizeof content) != sizeof small) err(1, "%s", name(i));
    close(file);
  }
}

static void drop(void) {
  for (int i = 0; i < files; i++) {
    if (unlink(name(i)) != 0) err(1, "%s", name(i));
  }
  for (int i = 0; i * FILES_A_FOLDER < files; i++) {
    char folder[16];
    snprintf(folder, sizeof folder, "%d", i);
    if (rmdir(folder) != 0) err(1, "%s", folder);
  }
}

static void fill(void) {
  int file = open("large", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  for (int i = 0; i < large_mib; i++) {
    if (write(file, piece, PIECE) != PIECE) err(1, "large");
  }
  close(file);
}

static void scan(void) {
  int file = open("large", O_RDONLY);
  for (int i = 0; i < large_mib; i++) {
    if (read(file, piece, PIECE) != PIECE) err(1, "large");
  }
  close(file);
}

/* Caches of the guest's kernel would answer otherwise. */
static void forget(void) {
  sync();
  int caches = open("/proc/sys/vm/drop_caches", O_WRONLY);
  if (caches < 0 || write(caches, "3", 1) != 1) err(1, "/proc/sys/vm/drop_caches");
  close(caches);
}

int main(int argc, char** argv) {
  if (argc != 4 || chdir(argv[1]) != 0)
    err(2, "usage: shares_client DIRECTORY SMALL_FILES LARGE_MIB");
  files = atoi(argv[2]);
  large_mib = atoi(argv[3]);
  piece = malloc(PIECE);
  if (piece == NULL) err(1, "memory");
  memset(small, 's', sizeof small);
  memset(piece, 'l', PIECE);
  const struct {
    const char* name;
    void (*work)(void);
  } steps[] = {{"create", make},      {"-", forget}, {"stat", look},      {"-", forget},
               {"list", list},        {"-", forget}, {"read", take},      {"remove", drop},
               {"write-large", fill}, {"-", forget}, {"read-large", scan}};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    double start = now();
    steps[i].work();
    if (*steps[i].name != '-') {
      printf("%s %.6f\n", steps[i].name, now() - start);
      fflush(stdout);
    }
  }
  unlink("large");
  return 0;
}
