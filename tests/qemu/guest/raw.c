/* SPDX-License-Identifier: MIT */
/*
 * Checksummed writes to a bare device, past the page cache. The worker knows the generation of
 * every block, so that a lost or late write shows when it is read. What is read goes by DMA into a
 * pool of pages that no CPU ever writes, stays there, and is compared again and again: a page of
 * the pool that did not move with the guest, because nobody told that a device had written it, is
 * found even when the read itself was right.
 */
#include "pattern.h"
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCKS 2048u /* on the device */
#define SLOTS  2048u /* in the pool */
#define RUN    32u   /* at most in one request */
#define LOOK   24u   /* pages of the pool compared in a step */

struct raw {
	int fd;
	uint64_t generation[BLOCKS];
	struct tag
		held[SLOTS]; /* what each page of the pool must hold; generation 0: nothing yet */
	char *pool;
	char *out;
	uint32_t cursor;
};

static void write_run(struct worker *w, uint32_t first, uint32_t count)
{
	struct raw *raw = w->data;
	size_t bytes = (size_t)count * PAGE_BYTES;
	ssize_t done;

	for (uint32_t i = 0; i < count; i++) {
		struct tag tag = {w->owner, first + i, raw->generation[first + i] + 1};

		pattern_fill(raw->out + (size_t)i * PAGE_BYTES, &tag);
	}
	done = pwrite(raw->fd, raw->out, bytes, (off_t)(w->offset + (uint64_t)first * PAGE_BYTES));
	if (done != (ssize_t)bytes) {
		wrong(w, "write of %u blocks from %u: %s", count, first,
		      done < 0 ? strerror(errno) : "too short");
		return;
	}
	for (uint32_t i = 0; i < count; i++)
		raw->generation[first + i]++;
	w->work->writes++;
}

static void look(struct worker *w, uint32_t slot, const char *when)
{
	struct raw *raw = w->data;
	char what[96];

	if (raw->held[slot].generation == 0)
		return;
	w->work->pages++;
	if (pattern_check(raw->pool + (size_t)slot * PAGE_BYTES, &raw->held[slot], what,
			  sizeof(what)))
		return;
	wrong(w, "block %u %s: %s", raw->held[slot].index, when, what);
	raw->held[slot].generation = 0; /* said once */
}

static void read_run(struct worker *w, uint32_t first, uint32_t slot, uint32_t count, bool compare)
{
	struct raw *raw = w->data;
	size_t bytes = (size_t)count * PAGE_BYTES;
	ssize_t done = pread(raw->fd, raw->pool + (size_t)slot * PAGE_BYTES, bytes,
			     (off_t)(w->offset + (uint64_t)first * PAGE_BYTES));

	if (done != (ssize_t)bytes) {
		wrong(w, "read of %u blocks from %u: %s", count, first,
		      done < 0 ? strerror(errno) : "too short");
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		raw->held[slot + i] = (struct tag){w->owner, first + i, raw->generation[first + i]};
		if (compare)
			look(w, slot + i, "read from the device");
	}
	w->work->reads++;
}

static int raw_setup(struct worker *w)
{
	size_t bytes = SLOTS * PAGE_BYTES;
	struct raw *raw = calloc(1, sizeof(*raw));

	if (raw == NULL)
		return -ENOMEM;
	w->data = raw;
	w->offset += (uint64_t)w->owner * BLOCKS * PAGE_BYTES;
	raw->fd = open(w->path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (raw->fd < 0)
		return -errno;
	raw->pool = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	raw->out = aligned_alloc(PAGE_BYTES, (size_t)RUN * PAGE_BYTES);
	if (raw->pool == MAP_FAILED || raw->out == NULL)
		return -ENOMEM;
	for (uint32_t block = 0; block < BLOCKS; block += RUN)
		write_run(w, block, RUN);
	return 0;
}

static void raw_step(struct worker *w)
{
	struct raw *raw = w->data;
	uint32_t count = pick(w, 4) == 0 ? 1 + pick(w, RUN) : 1;
	uint32_t first = pick(w, BLOCKS - count + 1);

	if (pick(w, 3) == 0)
		write_run(w, first, count);
	else
		read_run(w, first, pick(w, SLOTS - count + 1), count, pick(w, 2) == 0);
	for (uint32_t i = 0; i < LOOK; i++) {
		look(w, raw->cursor, "in memory since it was read");
		raw->cursor = (raw->cursor + 1) % SLOTS;
	}
}

/* Everything: what memory holds, then what the device holds. */
static void raw_verify(struct worker *w)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		look(w, slot, "in memory since it was read");
	for (uint32_t block = 0; block < BLOCKS; block += RUN)
		read_run(w, block, pick(w, SLOTS - RUN + 1), RUN, true);
}

const struct worker raw_worker = {.setup = raw_setup, .step = raw_step, .verify = raw_verify};
