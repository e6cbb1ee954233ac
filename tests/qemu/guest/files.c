/* SPDX-License-Identifier: MIT */
/*
 * Files on a file system: written, synced, renamed, removed, and read again from the device. The
 * worker knows the size and the generation of each, so that a lost write or a file that should not
 * be shows.
 */
#include "pattern.h"
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 24u
#define PAGES 48u /* at most in a file */

struct files {
	struct {
		uint64_t generation;
		uint32_t pages; /* 0: there is no such file */
	} file[FILES];
	char *buffer;
};

static void name_of(const struct worker *w, uint32_t file, char *name, size_t bytes)
{
	snprintf(name, bytes, "%s/file-%u", w->path, file);
}

/* A new content under another name that then takes the place of the old. */
static void write_file(struct worker *w, uint32_t file)
{
	struct files *files = w->data;
	uint32_t pages = 1 + pick(w, PAGES);
	size_t bytes = (size_t)pages * PAGE_BYTES;
	char name[256], fresh[256];
	int fd;

	name_of(w, file, name, sizeof(name));
	snprintf(fresh, sizeof(fresh), "%s/new", w->path);
	for (uint32_t page = 0; page < pages; page++) {
		struct tag tag = {w->owner, file * PAGES + page, files->file[file].generation + 1};

		pattern_fill(files->buffer + (size_t)page * PAGE_BYTES, &tag);
	}
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, files->buffer, bytes) != (ssize_t)bytes || fsync(fd) < 0 ||
	    rename(fresh, name) < 0)
		wrong(w, "writing %s: %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
	files->file[file].generation++;
	files->file[file].pages = pages;
	w->work->writes++;
}

static void compare(struct worker *w, uint32_t file, const char *name)
{
	struct files *files = w->data;
	char what[96];

	for (uint32_t page = 0; page < files->file[file].pages; page++) {
		struct tag tag = {w->owner, file * PAGES + page, files->file[file].generation};

		w->work->pages++;
		if (pattern_check(files->buffer + (size_t)page * PAGE_BYTES, &tag, what,
				  sizeof(what)))
			continue;
		wrong(w, "page %u of %s: %s", page, name, what);
		return;
	}
}

static void read_file(struct worker *w, uint32_t file)
{
	struct files *files = w->data;
	size_t due = (size_t)files->file[file].pages * PAGE_BYTES;
	ssize_t done;
	char name[256];
	int fd;

	name_of(w, file, name, sizeof(name));
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if (due != 0 || errno != ENOENT)
			wrong(w, "opening %s: %s", name, strerror(errno));
		return;
	}
	/* It was synced: the cache gives its pages up, and the device is asked. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	done = read(fd, files->buffer, (size_t)PAGES * PAGE_BYTES);
	close(fd);
	if (done != (ssize_t)due)
		wrong(w, "reading %s: %zd bytes instead of %zu", name, done, due);
	else
		compare(w, file, name);
	w->work->reads++;
}

static void remove_file(struct worker *w, uint32_t file)
{
	struct files *files = w->data;
	char name[256];

	name_of(w, file, name, sizeof(name));
	if (files->file[file].pages != 0 && unlink(name) < 0)
		wrong(w, "removing %s: %s", name, strerror(errno));
	files->file[file].pages = 0;
}

static int files_setup(struct worker *w)
{
	struct files *files = calloc(1, sizeof(*files));

	if (files == NULL)
		return -ENOMEM;
	w->data = files;
	files->buffer = aligned_alloc(PAGE_BYTES, (size_t)PAGES * PAGE_BYTES);
	return files->buffer == NULL ? -ENOMEM : 0;
}

static void files_step(struct worker *w)
{
	uint32_t file = pick(w, FILES);

	switch (pick(w, 8)) {
	case 0:
		remove_file(w, file);
		break;
	case 1:
	case 2:
	case 3:
		write_file(w, file);
		break;
	default:
		read_file(w, file);
	}
}

static void files_verify(struct worker *w)
{
	for (uint32_t file = 0; file < FILES; file++)
		read_file(w, file);
}

const struct worker files_worker = {
	.setup = files_setup, .step = files_step, .verify = files_verify};
