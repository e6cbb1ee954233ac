/* SPDX-License-Identifier: MIT */
/* The migration of an mtty through the client, against the contract. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "guest.h"

#define STREAM_MAX 4096

static bool holds_session(uint32_t state)
{
	return state == QSC_STATE_RESUMING ||
	       (state < QSC_STATE_COUNT && qsc_state_is_saving((enum qsc_state)state));
}

/* Whether going from one to the other opens a session (SESS-1). */
static bool opens(enum qsc_state from, uint32_t to)
{
	if (!holds_session(to) || from == (enum qsc_state)to)
		return false;
	return !(qsc_state_is_saving(from) && to != QSC_STATE_RESUMING);
}

/* The state a request ends in, or -EINVAL: the contract's own walk. */
static int walk(uint32_t flags, uint32_t from, uint32_t to)
{
	int next = (int)from;

	while (next >= 0 && (uint32_t)next != to)
		next = qsc_contract_next(flags, (uint32_t)next, to);
	return next >= 0 && from == to ? qsc_contract_next(flags, from, to) : next;
}

static enum qsc_state state_of(struct qsc_device *dev)
{
	enum qsc_state state;

	if (qsc_device_get_state(dev, &state) < 0)
		give_up("the state cannot be read");
	return state;
}

/* From wherever it is, with a whole stream in it where it loads. */
static void bring_to(struct qsc_device *dev, enum qsc_state state, const void *stream, size_t size)
{
	uint64_t session;
	int result = qsc_device_reset(dev);

	if (!result && state == QSC_STATE_RESUMING)
		result = load(dev, stream, size, size);
	else if (!result)
		result = qsc_device_set_state(dev, state, &session);
	if (result < 0 || state_of(dev) != state)
		give_up("%s cannot be reached: %s", qsc_state_name(state), strerror(-result));
}

int cmd_matrix(int argc, char **argv)
{
	static const uint32_t targets[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 99};
	struct qsc_device *dev = open_device(argv[0]);
	struct qsc_migration_info info;
	char stream[STREAM_MAX];
	size_t size;
	int wrong = 0;
	int tried = 0;

	(void)argc;
	if (qsc_device_get_migration(dev, &info) < 0)
		give_up("it tells no migration capabilities");
	size = save(dev, stream, sizeof(stream));
	for (uint32_t from = 1; from < QSC_STATE_COUNT; from++) {
		if (!qsc_state_exists(info.flags, from))
			continue;
		for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
			int expected = walk(info.flags, from, targets[i]);
			uint64_t session;
			int result;
			int ends;

			bring_to(dev, (enum qsc_state)from, stream, size);
			result = qsc_device_set_state(dev, targets[i], &session);
			ends = (int)state_of(dev);
			tried++;
			if ((result < 0) == (expected < 0) &&
			    ends == (expected < 0 ? (int)from : expected) &&
			    (result >= 0 || result == -EINVAL) &&
			    !!session == (expected >= 0 && opens((enum qsc_state)from, targets[i])))
				continue;
			wrong++;
			say("NOTE %s to %u: %s, ends in %s, session %llu",
			    qsc_state_name((enum qsc_state)from), targets[i], strerror(-result),
			    qsc_state_name((enum qsc_state)ends), (unsigned long long)session);
		}
	}
	check(!wrong, "every transition follows the contract", "%d of %d do not", wrong, tried);
	say("FIGURE transitions %d of flags %u", tried, info.flags);
	qsc_device_close(dev);
	return 0;
}

/* ---- save and load ---- */

static void check_stopped(struct qsc_device *dev)
{
	uint8_t value = 0;
	ssize_t n = qsc_device_region_read(dev, 0, 7, &value, 1);

	check(n == 1 && value == 0xff, "a stopped device reads as all ones (DEV-7)", "%zd, %#x", n,
	      value);
}

static void check_precopy(struct qsc_device *dev)
{
	struct qsc_precopy_info info;
	char buf[STREAM_MAX];
	uint64_t session;
	ssize_t n = 1;
	int result = qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session);

	if (result < 0)
		give_up("PRE_COPY: %s", strerror(-result));
	result = qsc_device_session_precopy_info(dev, session, &info);
	check(!result && info.initial_bytes, "pre-copy begins with initial bytes (SESS-4)",
	      "%s, %llu", strerror(-result), (unsigned long long)info.initial_bytes);
	while (n > 0)
		n = qsc_device_session_read(dev, session, buf, sizeof(buf));
	check(n == -ENOMSG, "a drained PRE_COPY is not the end (SESS-3)", "%zd", n);
	result = qsc_device_session_precopy_info(dev, session, &info);
	check(!result && !info.initial_bytes, "then no initial bytes are left", "%llu",
	      (unsigned long long)info.initial_bytes);
	result = qsc_device_set_state(dev, QSC_STATE_RUNNING, &session);
	n = qsc_device_session_read(dev, 1, buf, sizeof(buf));
	check(!result && n == -ENODEV, "a session that was left has ended (SESS-2)", "%zd", n);
}

int cmd_move(int argc, char **argv)
{
	struct qsc_device *from = open_device(argv[0]);
	struct qsc_device *to = open_device(argv[1]);
	char stream[STREAM_MAX], again[STREAM_MAX], text[64];
	uint64_t session;
	uint64_t estimate;
	size_t size, same;
	int result;

	(void)argc;
	check_precopy(from);
	put_bytes(from, "to be moved");
	result = qsc_device_data_size(from, &estimate);
	size = save(from, stream, sizeof(stream));
	check(!result && estimate == size, "the estimate is the size (SESS-10)", "%llu, not %zu",
	      (unsigned long long)estimate, size);
	check_stopped(from);
	/* Byte by byte: any segmentation is legal (SESS-5). */
	result = load(to, stream, size, 1);
	if (!result)
		result = qsc_device_set_state(to, QSC_STATE_STOP, &session);
	check(!result, "what one mtty saved another loads", "%s", strerror(-result));
	same = save(to, again, sizeof(again));
	check(same == size && !memcmp(stream, again, size), "and saves the same (SESS-8)",
	      "%zu, %zu", same, size);
	result = qsc_device_set_state(to, QSC_STATE_RUNNING, &session);
	take_bytes(to, text, sizeof(text));
	check(!result && !strcmp(text, "to be moved"), "the data came along", "'%s'", text);
	say("FIGURE stream %zu bytes", size);
	qsc_device_close(from);
	qsc_device_close(to);
	return 0;
}

/* ---- refusals ---- */

static void try_load(struct qsc_device *dev, const char *name, const void *stream, size_t size)
{
	uint64_t session;
	enum qsc_state state;
	char text[64] = "";
	int written = load(dev, stream, size, size);
	int result = qsc_device_set_state(dev, QSC_STATE_STOP, &session);

	state = state_of(dev);
	check(result < 0 && (state == QSC_STATE_RESUMING || state == QSC_STATE_ERROR), name,
	      "written: %s, then %s, in %s", strerror(-written), strerror(-result),
	      qsc_state_name(state));
	result = qsc_device_reset(dev);
	state = state_of(dev);
	if (!result)
		take_bytes(dev, text, sizeof(text));
	check(!result && state == QSC_STATE_RUNNING && !text[0],
	      "after which a reset leaves no trace (SESS-7)", "%s, in %s, '%s'", strerror(-result),
	      qsc_state_name(state), text);
}

/* The second is an mtty of the other kind. */
int cmd_refuse(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	struct qsc_device *other = open_device(argv[1]);
	char stream[STREAM_MAX], altered[STREAM_MAX];
	size_t size, foreign;

	(void)argc;
	put_bytes(dev, "secret");
	size = save(dev, stream, sizeof(stream));
	if (qsc_device_reset(dev) < 0)
		give_up("it cannot be reset");
	/* mtty's reset leaves its registers: what it holds is taken out. */
	take_bytes(dev, altered, sizeof(altered));
	try_load(dev, "a truncated stream is refused (SESS-6)", stream, size - 1);
	try_load(dev, "an empty stream is refused (SESS-6)", stream, 0);
	memcpy(altered, stream, size);
	altered[0] ^= 1;
	try_load(dev, "an altered stream is refused (SESS-6)", altered, size);
	memcpy(altered, stream, size);
	altered[size] = 0;
	try_load(dev, "a stream with more behind it is refused (SESS-6)", altered, size + 1);
	foreign = save(other, altered, sizeof(altered));
	try_load(dev, "a stream of another port count is refused (SESS-11)", altered, foreign);
	qsc_device_close(dev);
	qsc_device_close(other);
	return 0;
}

/* ---- descriptors ---- */

static int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

static int highest_fd(void)
{
	int fd = dup(0);

	if (fd < 0)
		give_up("no descriptor");
	close(fd);
	return fd;
}

int cmd_files(int argc, char **argv)
{
	static const enum qsc_state openers[] = {QSC_STATE_PRE_COPY, QSC_STATE_STOP_COPY,
						 QSC_STATE_RESUMING};
	struct qsc_device *dev = open_device(argv[0]);
	struct rlimit before, none;
	int wrong = 0;

	(void)argc;
	if (getrlimit(RLIMIT_NOFILE, &before) < 0)
		give_up("no limit");
	none = before;
	for (size_t i = 0; i < sizeof(openers) / sizeof(openers[0]); i++) {
		uint64_t session;
		int result;

		put_bytes(dev, "x");
		none.rlim_cur = (rlim_t)highest_fd();
		(void)setrlimit(RLIMIT_NOFILE, &none);
		result = qsc_device_set_state(dev, openers[i], &session);
		(void)setrlimit(RLIMIT_NOFILE, &before);
		if (result != -EMFILE || state_of(dev) != QSC_STATE_RUNNING)
			wrong++;
		if (qsc_device_set_state(dev, openers[i], &session) < 0 || !session)
			wrong++;
		if (qsc_device_reset(dev) < 0)
			wrong++;
	}
	check(!wrong, "without a free descriptor the state does not change (SESS-9)", "%d wrong",
	      wrong);
	qsc_device_close(dev);
	return 0;
}

/* ---- leaks ---- */

static long status_kib(const char *key)
{
	char line[256];
	long kib = -1;
	FILE *file = fopen("/proc/self/status", "r");

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			kib = strtol(line + strlen(key), NULL, 10);
	if (file)
		(void)fclose(file);
	return kib;
}

/* Pages that the kernel has pinned and not let go of, for whomever. */
static long count_pins(void)
{
	unsigned long acquired = 0;
	unsigned long released = 0;
	char line[256];
	FILE *file = fopen("/proc/sys/vm/stat_refresh", "w");

	/* What each processor has counted for itself is added now. */
	if (!file || fputs("1", file) < 0 || fclose(file))
		give_up("the kernel's counters cannot be refreshed");
	file = fopen("/proc/vmstat", "r");
	while (file && fgets(line, sizeof(line), file)) {
		(void)sscanf(line, "nr_foll_pin_acquired %lu", &acquired);
		(void)sscanf(line, "nr_foll_pin_released %lu", &released);
	}
	if (file)
		(void)fclose(file);
	return (long)(acquired - released);
}

static int count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	int count = 0;
	int c;

	while (file && (c = fgetc(file)) != EOF)
		count += c == '\n';
	if (file)
		(void)fclose(file);
	return count;
}

struct footprint {
	int files, mappings;
	long pins; /* pages */
	long locked, memory;
};

static struct footprint measure_footprint(void)
{
	return (struct footprint){
		.files = count_entries("/proc/self/fd"),
		.mappings = count_mappings(),
		.pins = count_pins(),
		.locked = status_kib("VmLck:"),
		.memory = status_kib("VmRSS:"),
	};
}

static void check_footprint(const struct footprint *before, const struct footprint *after,
			    long rounds, const char *name)
{
	check(before->files == after->files && before->mappings == after->mappings &&
		      before->pins == after->pins && before->locked == after->locked &&
		      after->memory <= before->memory + 256,
	      name,
	      "%d files, %d mappings, %ld pages pinned, %ld KiB locked, %ld resident; before %d, "
	      "%d, %ld, %ld, %ld",
	      after->files, after->mappings, after->pins, after->locked, after->memory,
	      before->files, before->mappings, before->pins, before->locked, before->memory);
	say("FIGURE rounds %ld: %d files, %d mappings, %ld pages pinned, %ld KiB locked before "
	    "and after; %ld and %ld KiB resident",
	    rounds, after->files, after->mappings, after->pins, after->locked, before->memory,
	    after->memory);
}

/* Open both, map memory, move one into the other, close. */
static void one_round(char **argv, int memory_fd)
{
	struct qsc_device *from = open_device(argv[0]);
	struct qsc_device *to = open_device(argv[1]);
	const struct qsc_dma_mapping mapping = {
		.iova = 0x200000,
		.size = 0x400000,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = memory_fd,
	};
	const struct qsc_dma_range range = {0x200000, 0x400000};
	uint64_t page_size = 4096;
	char stream[STREAM_MAX];
	uint64_t session = 0;
	uint64_t ended;
	size_t size = 0;
	ssize_t n;
	int result = qsc_device_dma_map(from, &mapping);

	if (!result)
		result = qsc_device_dma_map(to, &mapping);
	if (!result)
		result = qsc_device_log_start(from, &page_size, &range, 1);
	if (result == -ENOTTY)
		result = 0;
	if (!result)
		result = qsc_device_set_state(from, QSC_STATE_PRE_COPY, &session);
	if (!result)
		result = qsc_device_set_state(from, QSC_STATE_STOP_COPY, &ended);
	if (result < 0)
		give_up("a round: %s", strerror(-result));
	/* The session of PRE_COPY goes on in STOP_COPY (SESS-1). */
	while ((n = qsc_device_session_read(from, session, stream + size, sizeof(stream) - size)) >
	       0)
		size += (size_t)n;
	result = n < 0 ? (int)n : load(to, stream, size, 16);
	if (!result)
		result = qsc_device_set_state(to, QSC_STATE_RUNNING, &session);
	if (result < 0)
		give_up("a round: %s", strerror(-result));
	qsc_device_close(from);
	qsc_device_close(to);
}

int cmd_rounds(int argc, char **argv)
{
	int memory_fd = memfd_create("rounds", MFD_CLOEXEC);
	long rounds = strtol(argv[2], NULL, 10);
	struct footprint before, after;

	(void)argc;
	if (memory_fd < 0 || ftruncate(memory_fd, 0x400000) < 0)
		give_up("no memory");
	for (int i = 0; i < 10; i++)
		one_round(argv, memory_fd);
	before = measure_footprint();
	for (long i = 0; i < rounds; i++) {
		one_round(argv, memory_fd);
		if (i % 200 == 199)
			say("NOTE %ld rounds", i + 1);
	}
	after = measure_footprint();
	check_footprint(&before, &after, rounds, "rounds of open, migrate and close leave nothing");
	close(memory_fd);
	return 0;
}

/* A device whose IOMMU really pins what is mapped for it; closed with the mapping in place. */
static void one_pin(const char *uri, int memory_fd, bool look)
{
	struct qsc_device *dev = open_device(uri);
	const struct qsc_dma_mapping mapping = {
		.iova = 0x200000,
		.size = 0x400000,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = memory_fd,
	};
	long before = count_pins();
	int result = qsc_device_dma_map(dev, &mapping);
	long pins = count_pins() - before;

	if (result < 0)
		give_up("memory cannot be mapped: %s", strerror(-result));
	if (look)
		check(pins == 1024, "what is mapped is pinned", "%ld pages", pins);
	qsc_device_close(dev);
}

int cmd_pins(int argc, char **argv)
{
	int memory_fd = memfd_create("pins", MFD_CLOEXEC);
	long rounds = strtol(argv[1], NULL, 10);
	struct footprint before, after;

	(void)argc;
	if (memory_fd < 0 || ftruncate(memory_fd, 0x400000) < 0)
		give_up("no memory");
	one_pin(argv[0], memory_fd, true);
	one_pin(argv[0], memory_fd, false);
	before = measure_footprint();
	for (long i = 0; i < rounds; i++)
		one_pin(argv[0], memory_fd, false);
	after = measure_footprint();
	check_footprint(&before, &after, rounds, "closing lets go of pinned memory");
	close(memory_fd);
	return 0;
}

/* ---- for those who kill it ---- */

int cmd_hold(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	int state = qsc_state_parse(argv[1]);
	uint64_t session;

	(void)argc;
	put_bytes(dev, "kept");
	if (state < 0 || qsc_device_set_state(dev, (uint32_t)state, &session) < 0)
		give_up("%s cannot be reached", argv[1]);
	say("HELD %s", argv[1]);
	for (;;)
		pause();
}

/* What the next user finds. */
int cmd_state(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	char stream[STREAM_MAX];
	uint64_t session;

	(void)argc;
	check(state_of(dev) == QSC_STATE_RUNNING, "the next user finds RUNNING (STATE-2)", "%s",
	      qsc_state_name(state_of(dev)));
	check(save(dev, stream, sizeof(stream)) > 0, "and can save it", "nothing");
	check(!qsc_device_set_state(dev, QSC_STATE_RUNNING, &session), "and run it", "no");
	qsc_device_close(dev);
	return 0;
}
