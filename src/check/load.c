/* SPDX-License-Identifier: MIT */
/* SESS-5 to SESS-8 and SESS-11: what a stream is, what is taken, and what comes of it. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "check/clause.h"

#define MARK 0x0123456789abcdefULL

/* Something to recognise: a register, and device memory from end to end. */
static int leave_marks(struct harness *h)
{
	uint64_t size = harness_memory_size(h);
	uint64_t line[8];
	int r = harness_mark(h, MARK);

	for (uint64_t at = 0; !r && at < size; at += 4096) {
		for (size_t i = 0; i < 8; i++)
			line[i] = MARK ^ (at + i);
		r = harness_memory_write(h, at, line, sizeof(line));
	}
	return r;
}

/* Whether they are there (or, with `blank`, nothing is), in RUNNING. */
static enum qsc_check_result look_for_marks(struct harness *h, bool blank, const char *when)
{
	uint64_t size = harness_memory_size(h);
	uint64_t found, line[8];

	MUST(h, harness_marked(h, blank ? h->register_blank : MARK, &found),
	     "%s, a register holds %#llx", when, (unsigned long long)found);
	for (uint64_t at = 0; at < size; at += 4096) {
		REQUIRE(h, harness_memory_read(h, at, line, sizeof(line)));
		for (size_t i = 0; i < 8; i++)
			MUST(h, line[i] == (blank ? 0 : MARK ^ (at + i)),
			     "%s, device memory at %#llx holds %#llx", when,
			     (unsigned long long)(at + i * 8), (unsigned long long)line[i]);
	}
	return QSC_CHECK_HOLDS;
}

/* ---- SESS-5: the stream may be written in any segmentation ---- */

struct segmentation {
	const char *what;
	size_t edge;  /* bytes at both ends that are written in pieces of 1 */
	size_t piece; /* size of the others; 0: ever changing */
};

static int write_segmented(struct harness *h, const struct saved *s, const struct segmentation *how)
{
	size_t edge = how->edge < s->size / 2 ? how->edge : s->size / 2;
	size_t at = edge, end = s->size - edge;
	uint32_t random = 2463534242U;
	int r = harness_write(h, s->data, edge, 1);

	while (!r && at < end) {
		size_t n = how->piece;

		if (!n) {
			random ^= random << 13;
			random ^= random >> 17;
			random ^= random << 5;
			n = 1 + random % (random & 1 ? 32 : 9000);
		}
		n = n < end - at ? n : end - at;
		r = harness_write(h, s->data + at, n, n);
		at += n;
	}
	return r ? r : harness_write(h, s->data + end, edge, 1);
}

static enum qsc_check_result sess_5(struct harness *h)
{
	static const struct segmentation ways[] = {
		{"in one piece", 0, SIZE_MAX},
		{"byte by byte at its ends", 384, 16384},
		{"in ever changing pieces", 0, 0},
		{"in pieces of 4095 bytes", 0, 4095},
	};
	autosaved stream = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, leave_marks(h));
	REQUIRE(h, harness_save(h, &stream));
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		int r;

		REQUIRE(h, harness_start_there(h));
		REQUIRE(h, harness_set(h, QSC_STATE_RESUMING));
		r = write_segmented(h, &stream, &ways[i]);
		MUST(h, !r, "written %s, the stream is not taken: %s", ways[i].what, strerror(-r));
		r = harness_request(h, QSC_STATE_STOP);
		MUST(h, !r, "written %s, the stream is refused: %s", ways[i].what, strerror(-r));
		REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
		PART(look_for_marks(h, false, ways[i].what));
	}
	return holds(h, "%zu bytes %zu ways", stream.size, sizeof(ways) / sizeof(ways[0]));
}

/* ---- SESS-6: what RESUMING to STOP refuses ---- */

struct spoilt {
	const char *what;
	size_t keep;  /* bytes of the stream that are written */
	size_t extra; /* bytes after them */
	size_t flip;  /* byte that is changed; SIZE_MAX for none */
	enum qsc_state leaves;
	bool or_incomplete; /* what was changed may have been a length */
};

static enum qsc_check_result sess_6_refused(struct harness *h, const struct saved *stream,
					    const struct spoilt *how)
{
	static const uint8_t extra[16];
	enum qsc_state state;
	int r;

	REQUIRE(h, harness_start_there(h));
	REQUIRE(h, harness_set(h, QSC_STATE_RESUMING));
	if (how->flip < stream->size)
		stream->data[how->flip] ^= 0x10;
	r = harness_write(h, stream->data, how->keep, 60000);
	if (how->flip < stream->size)
		stream->data[how->flip] ^= 0x10;
	if (!r)
		harness_write(h, extra, how->extra, sizeof(extra));
	r = harness_request(h, QSC_STATE_STOP);
	state = harness_state(h);
	MUST(h, r < 0, "%s (%zu of %zu bytes, byte %zd changed) is accepted", how->what,
	     how->keep + how->extra, stream->size, (ssize_t)how->flip);
	if (!harness_tells_truth(h, state))
		return not_tried(h, "%s after a failed load is not true (STATE-4)",
				 qsc_state_name(state));
	MUST(h, state == how->leaves || (how->or_incomplete && state == QSC_STATE_RESUMING),
	     "%s (%zu of %zu bytes, byte %zd changed) leaves %s", how->what, how->keep + how->extra,
	     stream->size, (ssize_t)how->flip, qsc_state_name(state));
	harness_request(h, QSC_STATE_RUNNING);
	MUST(h, harness_state(h) != QSC_STATE_RUNNING,
	     "%s is refused, and then the device runs on it", how->what);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_6_cut(struct harness *h, const struct saved *stream)
{
	const size_t sizes[] = {0, 1, 7, 40, stream->size / 3, stream->size - 1};
	struct spoilt how = {"an incomplete stream", 0, 0, SIZE_MAX, QSC_STATE_RESUMING, false};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		how.keep = sizes[i];
		PART(sess_6_refused(h, stream, &how));
	}
	how = (struct spoilt){"a stream with bytes after its end",
			      stream->size,
			      1,
			      SIZE_MAX,
			      QSC_STATE_ERROR,
			      false};
	PART(sess_6_refused(h, stream, &how));
	how.extra = 16;
	return sess_6_refused(h, stream, &how);
}

static enum qsc_check_result sess_6_flipped(struct harness *h, const struct saved *stream,
					    unsigned int *flipped)
{
	struct spoilt how = {"a corrupted stream", stream->size, 0, 0, QSC_STATE_ERROR, true};

	/* Dense where a stream has its heads and its end, and here and there in between. */
	for (size_t at = 0; at < stream->size; at += at < 32 || stream->size - at < 24 ? 3 : 4999) {
		how.flip = at;
		PART(sess_6_refused(h, stream, &how));
		++*flipped;
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_6(struct harness *h)
{
	autosaved stream = {0};
	unsigned int flipped = 0;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, leave_marks(h));
	REQUIRE(h, harness_save(h, &stream));
	PART(sess_6_cut(h, &stream));
	PART(sess_6_flipped(h, &stream, &flipped));
	for (size_t i = 0; i < h->options->num_foreign; i++) {
		const struct qsc_check_foreign *f = &h->options->foreign[i];
		const struct saved foreign = {(uint8_t *)(uintptr_t)f->data, f->size, 0};
		struct spoilt how = {f->what, f->size, 0, SIZE_MAX, QSC_STATE_ERROR, false};

		PART(sess_6_refused(h, &foreign, &how));
	}
	return holds(h, "incomplete, trailing, %u times corrupted, %zu foreign", flipped,
		     h->options->num_foreign);
}

/* ---- SESS-7: after a failed load, a reset leaves no trace of it ---- */

/* Fail to load a stream that lacks bytes or has one changed, and reset. */
static enum qsc_check_result fail_to_load(struct harness *h, const struct saved *stream,
					  size_t keep, size_t flip)
{
	REQUIRE(h, harness_enter(h, QSC_STATE_RESUMING));
	stream->data[flip] ^= 1;
	(void)harness_write(h, stream->data, keep, 60000);
	stream->data[flip] ^= 1;
	if (harness_request(h, QSC_STATE_STOP) == 0)
		return not_tried(h, "a load that must fail succeeds (SESS-6)");
	REQUIRE(h, harness_reset(h));
	return QSC_CHECK_HOLDS;
}

/*
 * What is then saved must be what is saved after a reset; of a device that keeps something over
 * resets, what is saved after failing to load that.
 */
static enum qsc_check_result sess_7_after(struct harness *h, const struct saved *stream,
					  size_t missing, size_t flip)
{
	autosaved blank = {0};
	autosaved after = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	if (h->exerciser && h->exerciser->keeps) {
		PART(fail_to_load(h, &blank, blank.size - missing,
				  flip < blank.size ? flip : blank.size - 1));
		blank.size = 0;
		REQUIRE(h, harness_blank(h, &blank));
	}
	PART(fail_to_load(h, stream, stream->size - missing, flip));
	PART(look_for_marks(h, true, "after a failed load and a reset"));
	harness_settle(h);
	MUST(h, !harness_all_signals(h), "after a failed load and a reset, interrupts of it come");
	REQUIRE(h, harness_save(h, &after));
	MUST(h, after.size == blank.size && memcmp(after.data, blank.data, after.size) == 0,
	     "after a failed load and a reset, the device saves another state than after a reset");
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_7(struct harness *h)
{
	autosaved stream = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, leave_marks(h));
	REQUIRE(h, harness_busy(h, MEMORY_IOVA + MEMORY_TARGET, 4, 4096, 0));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	if (h->can_trigger)
		REQUIRE(h, harness_trigger(h, 0, 3));
	REQUIRE(h, harness_save(h, &stream));
	/* Nearly all was loaded; all but sound; and the last byte is missing. */
	PART(sess_7_after(h, &stream, 0, stream.size - 1));
	PART(sess_7_after(h, &stream, 0, stream.size / 2));
	PART(sess_7_after(h, &stream, 1, 0));
	return holds(h, "registers, memory, interrupts and the next stream are those of a reset");
}

/* ---- SESS-8: save, load, save yields an equal device ---- */

#define WORK	  40
#define WORK_SIZE 8192
#define WORK_IOVA (MEMORY_IOVA + MEMORY_TARGET)

/* The device goes on where the saved one stopped: every copy once, one interrupt each. */
static enum qsc_check_result sess_8_work(struct harness *h)
{
	autosaved stream = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, leave_marks(h));
	REQUIRE(h, harness_copy(h, WORK_IOVA, WORK, WORK_SIZE, 0));
	REQUIRE(h, harness_save(h, &stream));
	REQUIRE(h, harness_load(h, &stream));
	REQUIRE(h, harness_interrupts(h));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	MUST(h, !harness_await_copies(h, 0, WORK, 0),
	     "saved and loaded with %u copies under way, %s", WORK, h->trouble);
	MUST(h, harness_copied(h, WORK_IOVA, WORK, WORK_SIZE),
	     "saved and loaded with %u copies under way, not all arrive", WORK);
	PART(look_for_marks(h, false, "saved and loaded"));
	REQUIRE(h, harness_copy(h, WORK_IOVA, 4, 4096, 1));
	MUST(h, !harness_await_copies(h, 1, 4, 0), "saved and loaded, the device does not work: %s",
	     h->trouble);
	return QSC_CHECK_HOLDS;
}

#define COPIED	    0x4800 /* where the device itself writes its memory */
#define COPIED_SIZE 1024
#define MAPPED	    0xa800 /* where the user does, through a mapping */
#define MESSAGE	    "changed after it was sent"

static bool to_memory(const struct harness *h)
{
	return !harness_idle(h) && h->exerciser->to_device_memory && harness_memory_size(h);
}

/* Everything that can change after it was sent: by registers, by the device, by a mapping. */
static enum qsc_check_result change_all(struct harness *h, void *map)
{
	REQUIRE(h, leave_marks(h));
	if (to_memory(h)) {
		REQUIRE(h, harness_copy(h, QSC_CHECK_DEVICE_MEMORY + COPIED, 1, COPIED_SIZE, 3));
		REQUIRE(h, harness_await_copies(h, 3, 1, 0));
	}
	if (map)
		memcpy((char *)map + MAPPED, MESSAGE, sizeof(MESSAGE));
	REQUIRE(h, harness_busy(h, WORK_IOVA, WORK, WORK_SIZE, 0));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result all_changed(struct harness *h, bool mapped)
{
	uint8_t bytes[COPIED_SIZE];

	PART(look_for_marks(h, false, "saved through pre-copy and loaded"));
	if (to_memory(h)) {
		REQUIRE(h, harness_memory_read(h, COPIED, bytes, sizeof(bytes)));
		MUST(h, memcmp(bytes, h->memory + MEMORY_SOURCE, sizeof(bytes)) == 0,
		     "what the device wrote to its memory in PRE_COPY is lost");
	}
	if (mapped) {
		REQUIRE(h, harness_memory_read(h, MAPPED, bytes, sizeof(MESSAGE)));
		MUST(h, memcmp(bytes, MESSAGE, sizeof(MESSAGE)) == 0,
		     "what was written through a mapping in PRE_COPY is lost");
	}
	MUST(h, harness_idle(h) || !harness_await_copies(h, 0, WORK, 0),
	     "saved through pre-copy with %u copies under way, %s", WORK, h->trouble);
	return QSC_CHECK_HOLDS;
}

/* Through pre-copy, with changes after it was drained. */
static enum qsc_check_result sess_8_precopy(struct harness *h, bool mapped)
{
	autosaved stream = {0};
	void *map = NULL;
	int r;

	REQUIRE(h, harness_start(h));
	r = mapped ? qsc_device_region_map(h->dev, h->exerciser->memory_region, 0,
					   harness_memory_size(h), PROT_READ | PROT_WRITE, &map)
		   : 0;
	if (r && r != -ENOTTY)
		return not_tried(h, "device memory cannot be mapped: %s", strerror(-r));
	REQUIRE(h, harness_set(h, QSC_STATE_PRE_COPY));
	r = harness_read(h, &stream);
	if (r != -ENOMSG)
		return not_tried(h, "pre-copy cannot be drained (SESS-3)");
	PART(change_all(h, map));
	REQUIRE(h, harness_save(h, &stream));
	REQUIRE(h, harness_load(h, &stream));
	REQUIRE(h, harness_interrupts(h));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	return all_changed(h, map != NULL);
}

static enum qsc_check_result sess_8_again(struct harness *h, size_t *size)
{
	autosaved first = {0};
	autosaved second = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, leave_marks(h));
	REQUIRE(h, harness_busy(h, WORK_IOVA, WORK, WORK_SIZE, 0));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	if (h->can_trigger)
		REQUIRE(h, harness_trigger(h, 0, 5));
	REQUIRE(h, harness_save(h, &first));
	REQUIRE(h, harness_load(h, &first));
	REQUIRE(h, harness_save(h, &second));
	MUST(h, first.size == second.size, "saved %zu bytes, and after loading them %zu",
	     first.size, second.size);
	MUST(h, memcmp(first.data, second.data, first.size) == 0,
	     "what is saved after a load differs from what was loaded");
	*size = first.size;
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_8(struct harness *h)
{
	size_t size = 0;

	PART(sess_8_again(h, &size));
	if (!harness_idle(h))
		PART(sess_8_work(h));
	else
		harness_leave_out(h, "work that goes on after a load: %s", harness_idle(h));
	/* Where memory is mapped a device may find changes in another way than where it is not. */
	if (h->flags & QSC_MIGRATION_PRE_COPY) {
		PART(sess_8_precopy(h, false));
		if (harness_memory_size(h))
			PART(sess_8_precopy(h, true));
	}
	return holds(h, "the same %zu bytes%s", size,
		     harness_idle(h) ? "" : ", and the work goes on");
}

/* ---- SESS-11: a stream says what it is ---- */

static enum qsc_check_result sess_11(struct harness *h)
{
	static const uint8_t zeroes[4096], ones[4096] = {[0 ... 4095] = 0xff};
	static const char text[] = "GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n"
				   "Connection: close and something to make it long enough\r\n\r\n";
	const struct qsc_check_foreign shapeless[] = {
		{"a page of zeroes", zeroes, sizeof(zeroes)},
		{"a page of ones", ones, sizeof(ones)},
		{"a request for a web page", text, sizeof(text)},
	};
	size_t count = sizeof(shapeless) / sizeof(shapeless[0]);

	for (size_t i = 0; i < count + h->options->num_foreign; i++) {
		const struct qsc_check_foreign *f = i < count ? &shapeless[i]
							      : &h->options->foreign[i - count];
		int r;

		REQUIRE(h, harness_start_there(h));
		REQUIRE(h, harness_set(h, QSC_STATE_RESUMING));
		/* Before it changes anything: all of it need not have been seen. */
		r = harness_write(h, f->data, f->size, 512);
		MUST(h, r < 0 && r != -ENODEV, "%s is taken to its end (%s)", f->what,
		     r ? strerror(-r) : "no error");
	}
	return holds(h, "%zu streams of something else refused while they are written",
		     count + h->options->num_foreign);
}

const struct clause_check load_checks[] = {
	{QSC_CLAUSE_SESS_5, sess_5}, {QSC_CLAUSE_SESS_6, sess_6},   {QSC_CLAUSE_SESS_7, sess_7},
	{QSC_CLAUSE_SESS_8, sess_8}, {QSC_CLAUSE_SESS_11, sess_11}, {QSC_CLAUSE_COUNT, NULL},
};
