/* SPDX-License-Identifier: MIT */
/*
 * A program that holds a tally device (see tally.c), gives it work, and moves the device and its
 * memory to another process while the work is under way:
 *
 *	hold SOURCE-URI DESTINATION-URI MIGRATION-SOCKET
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <quiesce/client.h>
#include <quiesce/migrate.h>
#include <quiesce/set.h>

#define MEMORY_IOVA 0x100000ULL
#define MEMORY_SIZE (64ULL << 20)

enum { REG_ADDRESS = 0x00, REG_LENGTH = 0x08, REG_STATUS = 0x0c, REG_SUM = 0x10 };
enum { STATUS_BUSY = 1 };

/* [holder] */
struct holder {
	uint8_t *memory;
	int memory_fd;
	int irq_fd;
	struct qsc_device *dev;
	struct qsc_set *set;
	uint64_t completions; /* interrupts seen, on either side: state of the program itself */
};

static int fail(const struct qsc_error *err, const char *what)
{
	(void)fprintf(stderr, "hold: %s: %s\n", what, err->text);
	return 1;
}

/* [memory] */
static int make_memory(struct holder *holder)
{
	holder->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	holder->memory_fd = memfd_create("memory", MFD_CLOEXEC);
	if (holder->irq_fd < 0 || holder->memory_fd < 0 ||
	    ftruncate(holder->memory_fd, MEMORY_SIZE) < 0)
		return -ENOMEM;
	holder->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			      holder->memory_fd, 0);
	return holder->memory == MAP_FAILED ? -ENOMEM : 0;
}

/* [open] */
static int open_all(struct holder *holder, const char *uri, struct qsc_error *err)
{
	struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
	};
	int member;
	int result;

	result = make_memory(holder);
	if (result < 0) {
		(void)qsc_error_set(err, -result, NULL, "no memory");
		return result;
	}
	result = qsc_client_open(uri, NULL, &holder->dev, err);
	if (result < 0)
		return result;
	result = qsc_set_create(NULL, NULL, &holder->set);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "no memory");
	member = qsc_set_add(holder->set, "tally", holder->dev, err);
	if (member < 0)
		return member;
	/* The file lets the server map the memory; without it DMA would go over the socket. */
	mapping.vaddr = holder->memory;
	mapping.fd = holder->memory_fd;
	return qsc_set_dma_map(holder->set, (uint32_t)member, &mapping, err);
}

/* [close] */
static void close_all(struct holder *holder)
{
	qsc_set_destroy(holder->set);
	qsc_device_close(holder->dev);
	if (holder->memory && holder->memory != MAP_FAILED)
		munmap(holder->memory, MEMORY_SIZE);
	if (holder->memory_fd >= 0)
		close(holder->memory_fd);
	if (holder->irq_fd >= 0)
		close(holder->irq_fd);
}

/* [drive] */
static int set_up_interrupts(void *ctx)
{
	struct holder *holder = ctx;

	return qsc_device_set_eventfds(holder->dev, VFIO_PCI_MSIX_IRQ_INDEX, &holder->irq_fd, 1);
}

static int start_work(struct holder *holder)
{
	const uint64_t address = MEMORY_IOVA;
	const uint32_t length = MEMORY_SIZE;
	const uint32_t busy = STATUS_BUSY;
	const uint32_t bar = VFIO_PCI_BAR0_REGION_INDEX;

	if (qsc_device_region_write(holder->dev, bar, REG_ADDRESS, &address, 8) != 8 ||
	    qsc_device_region_write(holder->dev, bar, REG_LENGTH, &length, 4) != 4 ||
	    qsc_device_region_write(holder->dev, bar, REG_STATUS, &busy, 4) != 4)
		return -EIO;
	return 0;
}

static void take_interrupts(struct holder *holder)
{
	uint64_t count;

	if (read(holder->irq_fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
		holder->completions += count;
}

/* [user] */
static int pause_user(void *ctx)
{
	/* Nothing of this program runs by itself. A VMM stops its vCPUs here. */
	(void)ctx;
	return 0;
}

static int stopped(void *ctx)
{
	/* No interrupt will come on this side any more; those that came are accounted for here. */
	take_interrupts(ctx);
	return 0;
}

static ssize_t save(void *ctx, void *buf, size_t max)
{
	const struct holder *holder = ctx;

	if (max < sizeof(holder->completions))
		return -ENOSPC;
	memcpy(buf, &holder->completions, sizeof(holder->completions));
	return sizeof(holder->completions);
}

static int load(void *ctx, const void *buf, size_t size)
{
	struct holder *holder = ctx;

	if (size != sizeof(holder->completions))
		return -EINVAL;
	memcpy(&holder->completions, buf, size);
	return 0;
}

static int resume_user(void *ctx)
{
	(void)ctx;
	return 0;
}

/* [meet] */
/*
 * Both processes say that they are ready before the migration begins, so that a failure of one is
 * known to the other at once: its end of the pair is closed.
 */
static int meet(int other, const char *name)
{
	char ready = 1;

	if (send(other, &ready, 1, MSG_NOSIGNAL) == 1 && recv(other, &ready, 1, 0) == 1)
		return 0;
	(void)fprintf(stderr, "hold: the %s has failed: nothing was moved\n", name);
	return -EPIPE;
}

/* [source] */
/* 1: everything is as before and may be tried again. 3: somebody has to look at both sides. */
static int migration_failed(const struct qsc_migrate_report *report, const struct qsc_error *err)
{
	(void)fail(err, "migration");
	(void)fprintf(stderr, "hold: %s\n", report->outcome);
	return report->owner == QSC_OWNER_SOURCE ? 1 : 3;
}

static int source(const char *uri, const char *path, int other)
{
	struct holder holder = {.memory_fd = -1, .irq_fd = -1};
	struct qsc_migrate_report report;
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport = NULL;
	struct qsc_memory_region memory = {.address = MEMORY_IOVA, .size = MEMORY_SIZE};
	/* Nobody waits for this program; one that is waited for sets downtime_limit_us instead. */
	const struct qsc_migrate_options options = {.exceed_downtime = true};
	const struct qsc_migrate_user user = {
		.regions = &memory,
		.num_regions = 1,
		.pause = pause_user,
		.stopped = stopped,
		.save = save,
		.resume = resume_user,
		.ctx = &holder,
	};
	int code = 1;

	if (open_all(&holder, uri, &err) < 0) {
		code = fail(&err, "source");
		goto out;
	}
	memory.vaddr = holder.memory;
	for (uint64_t i = 0; i < MEMORY_SIZE; i++)
		holder.memory[i] = (uint8_t)(i % 251);
	if (set_up_interrupts(&holder) < 0 || start_work(&holder) < 0) {
		(void)fprintf(stderr, "hold: the device takes no work\n");
		goto out;
	}
	if (meet(other, "destination") < 0)
		goto out;
	if (qsc_transport_unix_connect(path, &transport, &err) < 0) {
		code = fail(&err, "source");
		goto out;
	}
	if (qsc_migrate_send(holder.set, &user, transport, &options, &report, &err) < 0) {
		code = migration_failed(&report, &err);
		goto out;
	}
	printf("source: %s\n", report.outcome);
	code = 0;
out:
	qsc_transport_close(transport);
	close_all(&holder);
	return code;
}

/* [destination] */
static int destination(const char *uri, const char *path, int other, struct holder *holder)
{
	struct qsc_transport *transport;
	struct qsc_migrate_report report;
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_memory_region memory = {.address = MEMORY_IOVA, .size = MEMORY_SIZE};
	const struct qsc_migrate_user user = {
		.regions = &memory,
		.num_regions = 1,
		.pause = pause_user,
		.load = load,
		.setup_irqs = set_up_interrupts,
		.resume = resume_user,
		.ctx = holder,
	};
	int result;

	if (open_all(holder, uri, &err) < 0)
		return fail(&err, "destination");
	memory.vaddr = holder->memory;
	if (qsc_transport_unix_listen(path, &transport, &err) < 0)
		return fail(&err, "destination");
	/* Listening before the other side connects. */
	result = meet(other, "source");
	if (result == 0)
		result = qsc_migrate_receive(holder->set, &user, transport, NULL, &report, &err);
	qsc_transport_close(transport);
	if (result < 0)
		return err.number ? fail(&err, "destination") : 1;
	printf("destination: %s\n", report.outcome);
	return 0;
}

/* [check] */
static int check(struct holder *holder)
{
	struct pollfd interrupt = {.fd = holder->irq_fd, .events = POLLIN};
	uint64_t expected = 0;
	uint64_t sum = 0;

	if (!holder->completions && poll(&interrupt, 1, 60000) == 1)
		take_interrupts(holder);
	for (uint64_t i = 0; i < MEMORY_SIZE; i++)
		expected += i % 251;
	if (qsc_device_region_read(holder->dev, VFIO_PCI_BAR0_REGION_INDEX, REG_SUM, &sum, 8) != 8)
		return 1;
	printf("sum: %s, interrupts: %llu\n", sum == expected ? "right" : "wrong",
	       (unsigned long long)holder->completions);
	return sum != expected || holder->completions != 1;
}

/* [main] */
int main(int argc, char **argv)
{
	int status = 1;
	int ends[2];
	int code;
	pid_t child;

	if (argc != 4) {
		(void)fprintf(stderr, "usage: hold SOURCE-URI DESTINATION-URI MIGRATION-SOCKET\n");
		return 2;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		perror("hold");
		return 1;
	}
	child = fork();
	if (!child) {
		struct holder holder = {.memory_fd = -1, .irq_fd = -1};

		close(ends[0]);
		code = destination(argv[2], argv[3], ends[1], &holder);
		code = code ? code : check(&holder);
		close_all(&holder);
		exit(code);
	}
	close(ends[1]);
	code = child < 0 ? 1 : source(argv[1], argv[3], ends[0]);
	close(ends[0]);
	if (child > 0)
		(void)waitpid(child, &status, 0);
	return code ? code : status != 0;
}
/* [end] */
