/* SPDX-License-Identifier: MIT */
/*
 * What a kernel and its mtty do when they are asked without the client: each place where they do
 * not follow the contract, with the calls that show it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/kernel/kernel.h"
#include "guest.h"

#define STREAM_MAX  4096
#define HEADER_SIZE 24 /* of mtty's stream */

struct raw {
	struct qsc_kernel_place place;
	struct qsc_kernel_way way;
	struct qsc_kernel_files files;
	const char *finding; /* the one under way */
};

static void said(const struct raw *raw, const char *fmt, ...) QSC_PRINTF(2, 3);

static void said(const struct raw *raw, const char *fmt, ...)
{
	va_list args;

	printf("SAID %s ", raw->finding);
	va_start(args, fmt);
	(void)vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

static void conclude(const struct raw *raw, bool deviates)
{
	say("FINDING %s %s", raw->finding, deviates ? "deviates" : "holds");
}

/* All that was said has left for the console: an oops writes there too, in the middle of a line. */
static void drain(void)
{
	(void)fflush(stdout);
	(void)tcdrain(STDOUT_FILENO);
}

static void raw_open(struct raw *raw)
{
	struct qsc_error err = QSC_ERROR_NONE;

	if (qsc_kernel_attach(&raw->place, raw->way.via, &raw->files, &err) < 0)
		give_up("%s", err.text);
}

/* ---- calls, and what they said ---- */

static const char *outcome(int result)
{
	return result < 0 ? strerrorname_np(-result) : "0";
}

static int get(struct raw *raw)
{
	struct vfio_device_feature_mig_state data = {0};
	int result = qsc_kernel_feature(
		raw->files.device, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_GET,
		&data, sizeof(data));

	if (result < 0)
		give_up("the state cannot be read: %s", strerror(-result));
	return (int)data.device_state;
}

/* *fd may be NULL where no session is expected. */
static int set(struct raw *raw, enum qsc_state target, int *fd)
{
	struct vfio_device_feature_mig_state data = {.device_state = target, .data_fd = -1};
	int result = qsc_kernel_feature(
		raw->files.device, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_SET,
		&data, sizeof(data));

	if (fd)
		*fd = result < 0 ? -1 : data.data_fd;
	return result;
}

static void set_said(struct raw *raw, enum qsc_state target, int *fd)
{
	int result = set(raw, target, fd);

	said(raw, "set %s: %s%s; then in %s", qsc_state_name(target), outcome(result),
	     fd && *fd >= 0 ? " and a descriptor" : "", qsc_state_name((enum qsc_state)get(raw)));
}

static void reset(struct raw *raw)
{
	if (qsc_kernel_ioctl(raw->files.device, VFIO_DEVICE_RESET, NULL) < 0)
		give_up("the device cannot be reset");
}

static void begin(struct raw *raw, const char *finding)
{
	raw->finding = finding;
	reset(raw);
}

/* Registers of the first port: what is written at 0 waits there until it is read. */
static off_t port(struct raw *raw, uint64_t offset)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = 0};

	if (qsc_kernel_ioctl(raw->files.device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
		give_up("the port's region cannot be found");
	return (off_t)(info.offset + offset);
}

static void poke(struct raw *raw, uint64_t offset, uint8_t value)
{
	if (pwrite(raw->files.device, &value, 1, port(raw, offset)) != 1)
		give_up("the port cannot be written");
}

static uint8_t peek(struct raw *raw, uint64_t offset)
{
	uint8_t value = 0;

	if (pread(raw->files.device, &value, 1, port(raw, offset)) != 1)
		give_up("the port cannot be read");
	return value;
}

static size_t read_all(int fd, void *buf, size_t size)
{
	size_t used = 0;
	ssize_t n;

	while (fd >= 0 && used < size && (n = read(fd, (char *)buf + used, size - used)) > 0)
		used += (size_t)n;
	return used;
}

static size_t save_raw(struct raw *raw, void *buf, size_t size)
{
	qsc_autoclose int fd = -1;

	if (set(raw, QSC_STATE_STOP_COPY, &fd) < 0)
		give_up("STOP_COPY cannot be reached");
	return read_all(fd, buf, size);
}

/* ---- the findings ---- */

static void precopy_end(struct raw *raw)
{
	struct pollfd wait = {.events = POLLIN};
	qsc_autoclose int fd = -1;
	char buf[STREAM_MAX];
	ssize_t n = 1;

	begin(raw, "precopy-end");
	set_said(raw, QSC_STATE_PRE_COPY, &fd);
	while (n > 0) {
		n = read(fd, buf, sizeof(buf));
		said(raw, "read: %s", n < 0 ? strerrorname_np(errno) : n ? "data" : "0");
	}
	conclude(raw, n == 0);
	raw->finding = "poll-always";
	wait.fd = fd;
	(void)poll(&wait, 1, 0);
	said(raw, "all is read; poll: %s", wait.revents & POLLIN ? "readable" : "not readable");
	conclude(raw, wait.revents & POLLIN);
}

static void precopy_flags(struct raw *raw)
{
	struct abi_precopy_info info = {.argsz = sizeof(info), .flags = 0x5a};
	qsc_autoclose int fd = -1;
	int result;

	begin(raw, "precopy-flags");
	set_said(raw, QSC_STATE_PRE_COPY, &fd);
	result = qsc_kernel_ioctl(fd, ABI_MIG_GET_PRECOPY_INFO, &info);
	said(raw, "pre-copy info with flags 0x5a: %s, flags %#x", outcome(result), info.flags);
	conclude(raw, !result && info.flags == 0x5a);
}

static void set_echo(struct raw *raw)
{
	struct vfio_device_feature_mig_state data = {.device_state = QSC_STATE_PRE_COPY};
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_feature_mig_state data;
	} request = {
		.feature = {.argsz = sizeof(request),
			    .flags = VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE |
				     VFIO_DEVICE_FEATURE_SET},
		.data = data,
	};
	qsc_autoclose int fd = -1;
	int result;

	begin(raw, "set-echo");
	set_said(raw, QSC_STATE_STOP_COPY, &fd);
	result = qsc_kernel_ioctl(raw->files.device, VFIO_DEVICE_FEATURE, &request);
	said(raw, "set PRE_COPY: %s, with %s in the answer; then in %s", outcome(result),
	     qsc_state_name((enum qsc_state)request.data.device_state),
	     qsc_state_name((enum qsc_state)get(raw)));
	conclude(raw, result < 0 && (int)request.data.device_state != get(raw));
}

static void session_lost(struct raw *raw)
{
	struct rlimit before, none;
	int next = dup(0);
	int result;

	begin(raw, "session-lost");
	close(next);
	(void)getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = (rlim_t)next;
	(void)setrlimit(RLIMIT_NOFILE, &none);
	result = set(raw, QSC_STATE_PRE_COPY, NULL);
	(void)setrlimit(RLIMIT_NOFILE, &before);
	said(raw, "no descriptor is free; set PRE_COPY: %s; then in %s", outcome(result),
	     qsc_state_name((enum qsc_state)get(raw)));
	conclude(raw, result < 0 && get(raw) != QSC_STATE_RUNNING);
}

static void reset_keeps(struct raw *raw)
{
	uint8_t status;

	begin(raw, "reset-keeps");
	poke(raw, 7, 0x42);
	said(raw, "write 0x42 to the scratch register; reset");
	reset(raw);
	status = peek(raw, 7);
	said(raw, "the scratch register reads %#x", status);
	conclude(raw, status == 0x42);
	poke(raw, 7, 0);
}

static void stopped_writes(struct raw *raw)
{
	char first[STREAM_MAX], second[STREAM_MAX];
	size_t size, again;

	begin(raw, "stopped-writes");
	poke(raw, 7, 0x11);
	size = save_raw(raw, first, sizeof(first));
	said(raw, "set STOP_COPY; the stream has %zu bytes", size);
	poke(raw, 7, 0x22);
	said(raw, "write 0x22 to the scratch register, which reads %#x", peek(raw, 7));
	set_said(raw, QSC_STATE_STOP, NULL);
	again = save_raw(raw, second, sizeof(second));
	said(raw, "set STOP_COPY; the stream is %s",
	     size == again && !memcmp(first, second, size) ? "the same" : "another one");
	conclude(raw, size != again || memcmp(first, second, size) != 0);
	reset(raw);
	poke(raw, 7, 0);
}

static void rejected_runs(struct raw *raw)
{
	char stream[STREAM_MAX];
	qsc_autoclose int fd = -1;
	size_t size;
	ssize_t n;

	begin(raw, "rejected-runs");
	size = save_raw(raw, stream, sizeof(stream));
	set_said(raw, QSC_STATE_RESUMING, &fd);
	stream[0] ^= 1;
	n = write(fd, stream, HEADER_SIZE);
	said(raw, "write a header with a wrong magic number: %s",
	     n < 0 ? strerrorname_np(errno) : "taken");
	n = write(fd, stream + HEADER_SIZE, size - HEADER_SIZE);
	said(raw, "write the rest: %s", n < 0 ? strerrorname_np(errno) : "taken");
	set_said(raw, QSC_STATE_RUNNING, NULL);
	conclude(raw, get(raw) == QSC_STATE_RUNNING);
}

static void incomplete(struct raw *raw)
{
	char stream[STREAM_MAX];
	qsc_autoclose int fd = -1;
	size_t size;

	begin(raw, "incomplete");
	size = save_raw(raw, stream, sizeof(stream));
	set_said(raw, QSC_STATE_RESUMING, &fd);
	said(raw, "write all but the last byte: %s",
	     write(fd, stream, size - 1) == (ssize_t)size - 1 ? "taken" : "refused");
	set_said(raw, QSC_STATE_STOP, NULL);
	conclude(raw, get(raw) != QSC_STATE_RESUMING);
}

static int log_start(struct raw *raw, uint64_t page_size)
{
	const struct qsc_dma_range range = {1U << 20, 1U << 20};
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = page_size,
		.num_ranges = 1,
		.ranges = (uint64_t)(uintptr_t)&range,
	};

	return qsc_kernel_feature(raw->files.device,
				  VFIO_DEVICE_FEATURE_DMA_LOGGING_START | VFIO_DEVICE_FEATURE_SET,
				  &control, sizeof(control));
}

static int log_stop(struct raw *raw)
{
	return qsc_kernel_feature(raw->files.device,
				  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP | VFIO_DEVICE_FEATURE_SET,
				  NULL, 0);
}

static int log_report(struct raw *raw)
{
	uint64_t bitmap[4] = {0};
	struct vfio_device_feature_dma_logging_report report = {
		.iova = 1U << 20,
		.length = 1U << 20,
		.page_size = 4096,
		.bitmap = (uint64_t)(uintptr_t)bitmap,
	};

	return qsc_kernel_feature(raw->files.device,
				  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | VFIO_DEVICE_FEATURE_GET,
				  &report, sizeof(report));
}

static void logging(struct raw *raw)
{
	int first, second;
	int probe = qsc_kernel_feature(raw->files.device,
				       VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT |
					       VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_PROBE,
				       NULL, 0);

	begin(raw, "log-probe");
	said(raw, "probe the dirty log's report: %s", outcome(probe));
	said(raw, "start: %s", outcome(log_start(raw, 4096)));
	first = log_report(raw);
	said(raw, "report: %s", outcome(first));
	(void)log_stop(raw);
	conclude(raw, !probe && first < 0);
	begin(raw, "log-twice");
	first = log_start(raw, 4096);
	second = log_start(raw, 4096);
	said(raw, "start: %s; start again: %s", outcome(first), outcome(second));
	(void)log_stop(raw);
	second = log_stop(raw);
	said(raw, "stop, and stop again: %s", outcome(second));
	conclude(raw, !first && !second);
}

static void trigger_stopped(struct raw *raw)
{
	qsc_autoclose int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct {
		struct vfio_irq_set set;
		int32_t fd;
	} request = {
		.set = {.argsz = sizeof(request),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_INTX_IRQ_INDEX,
			.count = 1},
		.fd = event,
	};
	struct vfio_irq_set trigger = {
		.argsz = sizeof(trigger),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_INTX_IRQ_INDEX,
		.count = 1,
	};
	uint64_t arrived;

	begin(raw, "trigger-stopped");
	said(raw, "set an eventfd for INTx: %s",
	     outcome(qsc_kernel_ioctl(raw->files.device, VFIO_DEVICE_SET_IRQS, &request)));
	set_said(raw, QSC_STATE_STOP, NULL);
	said(raw, "trigger INTx: %s",
	     outcome(qsc_kernel_ioctl(raw->files.device, VFIO_DEVICE_SET_IRQS, &trigger)));
	arrived = qsc_eventfd_drain(event);
	said(raw, "interrupts that arrived in STOP: %llu", (unsigned long long)arrived);
	conclude(raw, arrived);
	reset(raw);
}

static void state_kept(struct raw *raw)
{
	int fd;

	begin(raw, "state-kept");
	poke(raw, 7, 0x33);
	set_said(raw, QSC_STATE_STOP_COPY, &fd);
	qsc_fd_close(&fd);
	qsc_kernel_detach(&raw->files, NULL);
	said(raw, "let go of the device, and open it again");
	raw_open(raw);
	said(raw, "it is in %s, its scratch register reads %#x",
	     qsc_state_name((enum qsc_state)get(raw)), peek(raw, 7));
	conclude(raw, get(raw) != QSC_STATE_RUNNING);
	reset(raw);
	poke(raw, 7, 0);
}

static void find(struct raw *raw, const char *uri)
{
	struct qsc_error err = QSC_ERROR_NONE;

	if (qsc_kernel_find("", uri + strlen("vfio:"), &raw->place, &raw->way, &err) < 0)
		give_up("%s", err.text);
	raw_open(raw);
}

int cmd_raw(int argc, char **argv)
{
	struct raw raw = {0};

	(void)argc;
	find(&raw, argv[0]);
	precopy_end(&raw);
	precopy_flags(&raw);
	set_echo(&raw);
	session_lost(&raw);
	reset_keeps(&raw);
	stopped_writes(&raw);
	rejected_runs(&raw);
	incomplete(&raw);
	logging(&raw);
	trigger_stopped(&raw);
	state_kept(&raw);
	reset(&raw);
	qsc_kernel_detach(&raw.files, NULL);
	return 0;
}

/*
 * Leave a load half done, come back and ask for STOP. The kernel may be broken afterwards, so this
 * comes last, on a device that nobody needs any more.
 */
int cmd_crash(int argc, char **argv)
{
	struct raw raw = {.finding = "load-abandoned"};
	int status = 0;
	pid_t child;
	int fd;

	(void)argc;
	find(&raw, argv[0]);
	reset(&raw);
	set_said(&raw, QSC_STATE_RESUMING, &fd);
	qsc_fd_close(&fd);
	qsc_kernel_detach(&raw.files, NULL);
	said(&raw, "let go of the device, and open it again");
	drain();
	child = fork();
	if (child == 0) {
		raw_open(&raw);
		said(&raw, "it is in %s; set STOP", qsc_state_name((enum qsc_state)get(&raw)));
		drain();
		_exit(set(&raw, QSC_STATE_STOP, NULL) < 0);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		give_up("no child");
	said(&raw, "%s",
	     WIFSIGNALED(status) ? "the kernel has an oops and kills the caller"
				 : "the kernel goes on");
	conclude(&raw, WIFSIGNALED(status));
	return 0;
}
