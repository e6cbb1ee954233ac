/* SPDX-License-Identifier: MIT */
/* The fault layer: its language, and what each kind does at the points it is for. */
#include <errno.h>
#include <linux/vfio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <quiesce/device.h>

#include "base/fd.h"

/* A device below: every flag, moves where it is asked, and remembers. */
struct bottom {
	struct qsc_device device;
	enum qsc_state state;
	uint64_t sessions;
	unsigned int calls;
	unsigned int arcs;
	int state_result;
	int session_result;
	int irq_result;
	int fd;
	uint8_t written[16];
	size_t written_size;
	bool closed;
	uint32_t begun;
};

static struct bottom *bottom_of(struct qsc_device *dev)
{
	return (struct bottom *)(void *)dev;
}

static ssize_t bottom_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			   size_t count)
{
	bottom_of(dev)->calls++;
	memset(buf, 0x5a, count);
	return (ssize_t)count;
}

static ssize_t bottom_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
			    const void *buf, size_t count)
{
	bottom_of(dev)->calls++;
	bottom_of(dev)->written_size = count;
	memcpy(bottom_of(dev)->written, buf, count);
	return (ssize_t)count;
}

static int bottom_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct bottom *bottom = bottom_of(dev);

	if (bottom->irq_result)
		return bottom->irq_result;
	qsc_fd_close(&bottom->fd);
	if (set->count)
		bottom->fd = qsc_fd_dup(set->fds[0]);
	return 0;
}

static int bottom_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	return 0;
}

static int bottom_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	return 0;
}

static int bottom_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	info->flags = 7;
	info->dirty_log = true;
	return 0;
}

static int bottom_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	*state = bottom_of(dev)->state;
	return 0;
}

static int bottom_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct bottom *bottom = bottom_of(dev);
	bool was_saving = qsc_state_is_saving(bottom->state);

	if (bottom->state_result)
		return bottom->state_result;
	if (!qsc_state_exists(7, target))
		return -EINVAL;
	bottom->arcs++;
	bottom->state = (enum qsc_state)target;
	if (target == QSC_STATE_RESUMING || (qsc_state_is_saving(bottom->state) && !was_saving))
		*session = ++bottom->sessions;
	return 0;
}

static int bottom_begin(struct qsc_device *dev, uint32_t target)
{
	bottom_of(dev)->begun = target;
	return 0;
}

static int bottom_end(struct qsc_device *dev, uint64_t *session)
{
	return bottom_set_state(dev, bottom_of(dev)->begun, session);
}

static int bottom_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	*size_bytes = 1000;
	return 0;
}

static int bottom_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			 uint64_t *bitmap)
{
	bitmap[0] |= bottom_of(dev)->calls++ ? 0xf0 : 0xffff;
	return 0;
}

static ssize_t bottom_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	if (bottom_of(dev)->session_result)
		return bottom_of(dev)->session_result;
	return bottom_read(dev, 0, 0, buf, size);
}

static ssize_t bottom_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				    size_t size)
{
	return bottom_write(dev, 0, 0, buf, size);
}

static int bottom_precopy_info(struct qsc_device *dev, uint64_t session,
			       struct qsc_precopy_info *info)
{
	info->initial_bytes = 7;
	return 0;
}

static int bottom_reset(struct qsc_device *dev)
{
	bottom_of(dev)->state = QSC_STATE_RUNNING;
	return 0;
}

static void bottom_close(struct qsc_device *dev)
{
	qsc_fd_close(&bottom_of(dev)->fd);
	bottom_of(dev)->closed = true;
}

static const struct qsc_device_ops bottom_ops = {
	.kind = "bottom",
	.region_read = bottom_read,
	.region_write = bottom_write,
	.set_irqs = bottom_set_irqs,
	.dma_map = bottom_map,
	.dma_unmap = bottom_unmap,
	.get_migration = bottom_migration,
	.get_state = bottom_get_state,
	.set_state = bottom_set_state,
	.set_state_begin = bottom_begin,
	.set_state_end = bottom_end,
	.data_size = bottom_data_size,
	.log_report = bottom_report,
	.session_read = bottom_session_read,
	.session_write = bottom_session_write,
	.session_precopy_info = bottom_precopy_info,
	.reset = bottom_reset,
	.close = bottom_close,
};

static struct bottom bottom;
static char last_rule[128];
static unsigned int rules_struck;

static void struck(void *ctx, const char *rule)
{
	rules_struck++;
	(void)snprintf(last_rule, sizeof(last_rule), "%s", rule);
}

static struct qsc_device *open_with(const char *spec)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev = NULL;

	bottom = (struct bottom){.device = {&bottom_ops}, .state = QSC_STATE_RUNNING, .fd = -1};
	rules_struck = 0;
	if (qsc_fault_open(&bottom.device, "nic0", spec, struck, NULL, &dev, &err) < 0)
		fail_msg("%s", err.text);
	return dev;
}

static int set_state(struct qsc_device *dev, enum qsc_state target)
{
	uint64_t session;

	return qsc_device_set_state(dev, target, &session);
}

static enum qsc_state state_of(struct qsc_device *dev)
{
	enum qsc_state state;

	assert_int_equal(qsc_device_get_state(dev, &state), 0);
	return state;
}

static void test_language(void **state)
{
	static const char *const good[] = {
		"set-state=EIO",
		"set-state:STOP@2=ENOSPC",
		"arc:RUNNING-RUNNING_P2P=delay:10ms",
		"session-read@3+=flip:0,session-write@2-4=short:100",
		"nic0.log-report=drop:25%:7",
		"region-read:0/STOP@10%:3=fill:0xff",
		"irq:1@3=repeat",
		"get-state=say:RUNNING",
		"session-read=turn:ENOMSG:0",
		"set-state=turn:any:0",
		"arc:STOP-RESUMING=break:EPROTO",
		"open=kill",
		"close=delay:1s",
		"get-migration=say:6",
		"set-irqs/RESUMING=EINVAL",
	};
	static const char *const wrong[][2] = {
		{"", "has no rule"},
		{"set-state", "is not POINT=KIND"},
		{"set-sate=EIO", "has no point 'set-sate'; there are open,"},
		{"set-state:HALT=EIO", "knows no state 'HALT'"},
		{"set-state/HALT=EIO", "knows no state 'HALT'"},
		{"arc:RUNNING=EIO", "FROM-TO"},
		{"arc:RUNNING-RESUMING=EIO", "no direct arc from RUNNING to RESUMING"},
		{"set-state@0=EIO", "count from 1 on"},
		{"set-state@5-2=EIO", "count from 1 on"},
		{"set-state@0%=EIO", "count from 1 on"},
		{"region-read:x=EIO", "needs a number after 'region-read:'"},
		{"log-stop:3=EIO", "which takes nothing"},
		{".reset=EIO", "name of a device"},
		{"reset=EWHAT", "cannot do 'EWHAT' at reset"},
		{"reset=drop", "cannot do 'drop' at reset; possible are an error"},
		{"reset=delay:10", "delay:10ms"},
		{"reset=delay:2000000s", "delay:10ms"},
		{"data-size=say:EWHAT", "can say a number or an error at data-size"},
		{"reset=say:1", "can say 0 or an error at reset"},
		{"get-state=say:5", "knows no state or error '5'"},
		{"reset=turn:EIO", "turn:ERROR:ERROR"},
		{"reset=turn:EWHAT:0", "knows no error 'EWHAT'"},
		{"reset=move:UP", "move:STATE"},
		{"log-report=drop:101%", "P from 1 to 100"},
		{"set-state=session:new", "session:none"},
		{"reset=kill:3", "takes nothing"},
		{"reset=EIO,,", "is not POINT=KIND"},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(qsc_fault_check(good[i], NULL), 0);
	assert_int_equal(qsc_fault_check(NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct qsc_error err = QSC_ERROR_NONE;

		assert_int_equal(qsc_fault_check(wrong[i][0], &err), -EINVAL);
		if (!strstr(err.text, wrong[i][1]))
			fail_msg("%s: %s", wrong[i][0], err.text);
	}
}

static void test_names_a_device_that_is_not_there(void **state)
{
	static const char *const names[] = {"vfio0", "vfio1"};
	struct qsc_error err = QSC_ERROR_NONE;

	assert_int_equal(qsc_fault_check_names("reset=EIO,vfio1.reset=EIO", names, 2, &err), 0);
	assert_int_equal(qsc_fault_check_names("vfio0.reset=EIO,vfio9.reset=EIO", names, 2, &err),
			 -EINVAL);
	assert_string_equal(err.text, "the fault 'vfio9.reset=EIO' is for a device 'vfio9' that "
				      "there is not; there is vfio0, vfio1");
	assert_int_equal(qsc_fault_check_names("vfio9.reset=EIO", names, 0, &err), -EINVAL);
	assert_int_equal(qsc_fault_check_names(NULL, names, 2, &err), 0);
}

static void test_errors_at_requests_and_arcs(void **state)
{
	struct qsc_device *dev = open_with("set-state:STOP@2=ENOSPC");

	assert_int_equal(set_state(dev, QSC_STATE_STOP), 0);
	assert_int_equal(rules_struck, 0);
	assert_int_equal(set_state(dev, QSC_STATE_RUNNING), 0);
	assert_int_equal(set_state(dev, QSC_STATE_STOP), -ENOSPC);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(set_state(dev, QSC_STATE_STOP), 0);
	assert_int_equal(rules_struck, 1);
	assert_string_equal(last_rule, "set-state:STOP@2=ENOSPC");
	qsc_device_close(dev);
	assert_true(bottom.closed);

	/* The second arc of a request fails where the first has led. */
	dev = open_with("arc:RUNNING_P2P-STOP=EIO,other.reset=EIO");
	assert_int_equal(set_state(dev, QSC_STATE_STOP), -EIO);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING_P2P);
	assert_int_equal(set_state(dev, QSC_STATE_RUNNING), 0);
	assert_int_equal(qsc_device_reset(dev), 0);
	qsc_device_close(dev);

	/* Nothing strikes: every arc is taken, and a session is told. */
	dev = open_with("arc:STOP-RESUMING=EIO");
	{
		uint64_t session;

		assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session), 0);
		assert_int_equal(session, 1);
		assert_int_equal(bottom.arcs, 3);
		assert_int_equal(set_state(dev, QSC_STATE_STOP_COPY), 0);
		assert_int_equal(set_state(dev, 99), -EINVAL);
	}
	qsc_device_close(dev);
}

/* A request in two halves goes through where no rule could strike it; else the whole is asked for.
 */
static void test_requests_in_halves(void **state)
{
	static const char *const specs[] = {"set-state:STOP=EIO", "arc:RUNNING_P2P-STOP=EIO",
					    "reset=disconnect"};
	struct qsc_device *dev = open_with("session-read=flip,get-state=delay:1ms");
	uint64_t session;

	assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(bottom.arcs, 0);
	assert_int_equal(qsc_device_set_state_end(dev, &session), 0);
	assert_int_equal(session, 1);
	assert_int_equal(state_of(dev), QSC_STATE_STOP_COPY);
	qsc_device_close(dev);
	/* What is said of the session is a rule as well. */
	dev = open_with("set-state:STOP_COPY@1=session:again");
	assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_STOP), -EOPNOTSUPP);
	qsc_device_close(dev);
	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		dev = open_with(specs[i]);
		if (i >= 2)
			(void)qsc_device_reset(dev);
		assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_STOP), -EOPNOTSUPP);
		assert_true(set_state(dev, QSC_STATE_STOP) < 0);
		assert_int_equal(rules_struck, 1);
		qsc_device_close(dev);
	}
}

static void test_break_and_disconnect(void **state)
{
	struct qsc_device *dev = open_with("set-state:STOP_COPY=break:EPROTO");
	uint64_t value;
	uint8_t byte = 0;

	assert_int_equal(set_state(dev, QSC_STATE_STOP_COPY), -EPROTO);
	assert_int_equal(state_of(dev), QSC_STATE_ERROR);
	assert_int_equal(bottom.state, QSC_STATE_STOP);
	assert_int_equal(set_state(dev, QSC_STATE_RUNNING), -EIO);
	assert_int_equal(qsc_device_data_size(dev, &value), -EIO);
	assert_int_equal(qsc_device_session_read(dev, 1, &byte, 1), -ENODEV);
	assert_int_equal(qsc_device_region_write(dev, VFIO_PCI_CONFIG_REGION_INDEX, 0, &byte, 1),
			 -EIO);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(set_state(dev, QSC_STATE_STOP), 0);
	qsc_device_close(dev);

	dev = open_with("session-read@2=disconnect");
	assert_int_equal(qsc_device_session_read(dev, 1, &byte, 1), 1);
	assert_int_equal(qsc_device_session_read(dev, 1, &byte, 1), -ENOTCONN);
	assert_int_equal(qsc_device_reset(dev), -ENOTCONN);
	assert_int_equal(qsc_device_region_read(dev, 0, 0, &byte, 1), -ENOTCONN);
	qsc_device_close(dev);
}

static void test_data(void **state)
{
	struct qsc_device *dev = open_with(
		"session-read@1=flip:1,session-read@2=short:3,session-read@3+=skip,"
		"session-write@1=flip,session-write@2=skip,region-read/STOP=fill:0");
	struct iovec piece;
	size_t pieces;
	uint8_t buf[8];

	assert_int_equal(qsc_device_session_lend(dev, 1, buf, 8, &piece, 1, &pieces), 8);
	assert_int_equal(pieces, 1);
	assert_memory_equal(piece.iov_base, "\x5a\x5b\x5a\x5a\x5a\x5a\x5a\x5a", 8);
	assert_int_equal(qsc_device_session_read(dev, 1, buf, 8), 3);
	assert_int_equal(qsc_device_session_read(dev, 1, buf, 8), 0);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(qsc_device_session_write(dev, 1, buf, 8), 8);
	assert_memory_equal(bottom.written, "\0\0\0\0\1\0\0\0", 8);
	bottom.written_size = 0;
	assert_int_equal(qsc_device_session_write(dev, 1, buf, 8), 8);
	assert_int_equal(bottom.written_size, 0);
	assert_int_equal(qsc_device_region_read(dev, 0, 0, buf, 2), 2);
	assert_int_equal(buf[0], 0x5a);
	assert_int_equal(set_state(dev, QSC_STATE_STOP), 0);
	assert_int_equal(qsc_device_region_read(dev, 0, 0, buf, 2), 2);
	assert_int_equal(buf[0], 0);
	qsc_device_close(dev);
}

/* A device may go to ERROR by itself, and cannot go where there is no way. */
static void test_moves(void **state)
{
	struct qsc_device *dev = open_with("dma-unmap=move:ERROR");
	uint64_t value;

	assert_int_equal(qsc_device_dma_unmap(dev, 0, 4096), 0);
	assert_int_equal(state_of(dev), QSC_STATE_ERROR);
	assert_int_equal(set_state(dev, QSC_STATE_RUNNING), -EIO);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	qsc_device_close(dev);

	/* The action itself meets it there. */
	dev = open_with("data-size=move:ERROR");
	assert_int_equal(qsc_device_data_size(dev, &value), -EIO);
	qsc_device_close(dev);

	dev = open_with("data-size=move:STOP,dma-unmap=move:STOP");
	bottom.state_result = -EINVAL;
	assert_int_equal(qsc_device_data_size(dev, &value), 0);
	assert_int_equal(rules_struck, 0);
	bottom.state_result = 0;
	assert_int_equal(qsc_device_dma_unmap(dev, 0, 4096), 0);
	assert_int_equal(rules_struck, 1);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	qsc_device_close(dev);
}

static void test_lies(void **state)
{
	struct qsc_device *dev = open_with(
		"set-state@1=skip,get-state@1=say:STOP,data-size=say:5,get-migration=say:6,get-"
		"migration@2=nolog,"
		"precopy-info=say:0,session-read=turn:ENOMSG:0,session-write=turn:any:0,"
		"set-state:RESUMING=turn:EINVAL:EBUSY,reset=say:EIO,region-read=say:100,"
		"set-state:RUNNING=session:again,set-state:STOP_COPY=session:none,"
		"dma-unmap=move:STOP");
	struct qsc_migration_info migration;
	struct qsc_precopy_info info;
	uint64_t value;
	uint8_t buf[4];

	assert_int_equal(set_state(dev, QSC_STATE_STOP), 0);
	assert_int_equal(bottom.state, QSC_STATE_RUNNING);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_data_size(dev, &value), 0);
	assert_int_equal(value, 5);
	assert_int_equal(qsc_device_get_migration(dev, &migration), 0);
	assert_int_equal(migration.flags, 6);
	assert_true(migration.dirty_log);
	assert_int_equal(qsc_device_get_migration(dev, &migration), 0);
	assert_false(migration.dirty_log);
	assert_int_equal(qsc_device_session_precopy_info(dev, 1, &info), 0);
	assert_int_equal(info.initial_bytes, 0);
	bottom.session_result = -ENOMSG;
	assert_int_equal(qsc_device_session_read(dev, 1, buf, 4), 0);
	bottom.session_result = -EIO;
	assert_int_equal(qsc_device_session_read(dev, 1, buf, 4), -EIO);
	assert_int_equal(qsc_device_reset(dev), -EIO);
	/* A count never goes beyond the buffer. */
	assert_int_equal(qsc_device_region_read(dev, 0, 0, buf, 4), 4);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(qsc_device_dma_unmap(dev, 0, 4096), 0);
	assert_int_equal(bottom.state, QSC_STATE_STOP);
	qsc_device_close(dev);
}

static void test_dirty_log(void **state)
{
	struct qsc_device *dev = open_with("log-report@1=drop,log-report@2=repeat,"
					   "log-report@3=repeat,log-report@4=drop:50%:7");
	uint64_t bits = 1ULL << 63;

	assert_int_equal(qsc_device_log_report(dev, 0, 64 * 4096ULL, 4096, &bits), 0);
	assert_int_equal(bits, 1ULL << 63);
	bits = 0;
	assert_int_equal(qsc_device_log_report(dev, 0, 64 * 4096ULL, 4096, &bits), 0);
	assert_int_equal(bits, 0xf0);
	bits = 0;
	bottom.calls = 0;
	assert_int_equal(qsc_device_log_report(dev, 0, 64 * 4096ULL, 4096, &bits), 0);
	assert_int_equal(bits, 0xffff);
	bits = 0;
	bottom.calls = 0;
	assert_int_equal(qsc_device_log_report(dev, 0, 64 * 4096ULL, 4096, &bits), 0);
	assert_true(bits && bits != 0xffff && !(bits & ~0xffffULL));
	qsc_device_close(dev);
}

static void test_memory(void **state)
{
	static uint8_t memory[2 * 4096];
	struct qsc_device *dev = open_with("reset=scribble,get-state=scribble:peer");
	struct qsc_dma_mapping mapping = {
		.size = 4096, .flags = QSC_DMA_WRITE, .vaddr = memory, .fd = -1};
	qsc_autoclose int fd = qsc_fd_memory("scribbled", 4096);
	uint8_t byte;

	assert_int_equal(qsc_device_dma_map(dev, &mapping), 0);
	mapping = (struct qsc_dma_mapping){
		.iova = 4096, .size = 4096, .fd = fd, .flags = QSC_DMA_WRITE | QSC_DMA_PEER};
	assert_int_equal(qsc_device_dma_map(dev, &mapping), 0);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(memory[4095], 1);
	assert_int_equal(pread(fd, &byte, 1, 4095), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(pread(fd, &byte, 1, 4095), 1);
	assert_int_equal(byte, 1);
	assert_int_equal(qsc_device_dma_unmap(dev, 0, 4096), 0);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(memory[4095], 1);
	qsc_device_close(dev);
}

/* Signal through the layer and wait until the relay has passed on what it will. */
static uint64_t interrupts(struct qsc_device *dev, int fd, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		assert_int_equal(qsc_eventfd_signal(bottom.fd, 1), 0);
	/* Tearing down delivers what has come. */
	assert_int_equal(qsc_device_set_eventfds(dev, 2, NULL, 0), 0);
	return qsc_eventfd_drain(fd);
}

static void test_interrupts(void **state)
{
	static const struct {
		const char *spec;
		uint64_t want;
	} rows[] = {
		{"irq@2=drop", 4}, {"irq=drop", 0},	  {"irq@2+=repeat", 9},
		{"irq:1=drop", 5}, {"irq:0@1-2=drop", 3}, {"irq@1=delay:1us", 5},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct qsc_device *dev = open_with(rows[i].spec);
		qsc_autoclose int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

		assert_int_equal(qsc_device_set_eventfds(dev, 2, &fd, 1), 0);
		assert_int_equal(interrupts(dev, fd, 5), rows[i].want);
		qsc_device_close(dev);
	}
}

/* What the device had before a setup that it refused still reaches its user; what it never took
 * does not. */
static void test_refused_interrupts(void **state)
{
	struct qsc_device *dev = open_with("irq@1=repeat");
	qsc_autoclose int first = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	qsc_autoclose int second = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	assert_int_equal(qsc_device_set_eventfds(dev, 2, &first, 1), 0);
	bottom.irq_result = -ENOSPC;
	assert_int_equal(qsc_device_set_eventfds(dev, 2, &second, 1), -ENOSPC);
	bottom.irq_result = 0;
	assert_int_equal(interrupts(dev, first, 3), 4);
	assert_int_equal(qsc_eventfd_drain(second), 0);
	/* In place of the earlier one, once it is taken. */
	assert_int_equal(qsc_device_set_eventfds(dev, 2, &first, 1), 0);
	assert_int_equal(qsc_device_set_eventfds(dev, 2, &second, 1), 0);
	assert_int_equal(interrupts(dev, second, 3), 3);
	assert_int_equal(qsc_eventfd_drain(first), 0);
	qsc_device_close(dev);
}

static void test_open_kill_and_delay(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;
	struct timespec start;
	struct timespec end;
	pid_t child;
	int status;

	assert_int_equal(
		qsc_fault_open(&bottom.device, "nic0", "open=ENOMEM", NULL, NULL, &dev, &err),
		-ENOMEM);
	assert_non_null(strstr(err.text, "nic0 cannot be opened"));
	assert_int_equal(qsc_fault_open(&bottom.device, NULL, "nonsense", NULL, NULL, &dev, &err),
			 -EINVAL);
	dev = open_with("reset=delay:20ms");
	clock_gettime(CLOCK_MONOTONIC, &start);
	assert_int_equal(qsc_device_reset(dev), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true((end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec >=
		    20000000L);
	qsc_device_close(dev);
	child = fork();
	if (!child) {
		dev = open_with("reset=kill");
		(void)qsc_device_reset(dev);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_language),
		cmocka_unit_test(test_names_a_device_that_is_not_there),
		cmocka_unit_test(test_errors_at_requests_and_arcs),
		cmocka_unit_test(test_requests_in_halves),
		cmocka_unit_test(test_break_and_disconnect),
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_refused_interrupts),
		cmocka_unit_test(test_open_kill_and_delay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
