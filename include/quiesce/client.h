/* SPDX-License-Identifier: MIT */
/*
 * Open a device by URI.
 *
 * "vfio-user:PATH" connects to a vfio-user server's UNIX socket.
 *
 * "vfio:DEVICE" opens a device of this machine's kernel: a PCI address with its domain
 * ("vfio:0000:3b:00.2"), the UUID of a mediated device, a device file ("vfio:/dev/vfio/devices/
 * vfio3") or a group with one device ("vfio:/dev/vfio/12"). It is reached through its device file
 * and iommufd where both can be had, else through its group and a container; ",via=cdev" and
 * ",via=legacy" behind it insist on one of them. Nothing but access to those files is needed. Such
 * a device is reset when it is let go, and when its last user left it in another state than
 * RUNNING; its regions are not to be had as files, and memory that only its holder can reach (a
 * mapping without vaddr and fd) answers -ENOTSUP. The dirty log is that of the device, or of the
 * IOMMU. A session call that waits for the driver makes way for a state change, a reset or a close
 * of its session from another thread, and then goes on or ends. Devices of one IOMMU group can be
 * held by one process, and share what they reach: of what one has mapped, another can have the same
 * range of the same memory.
 *
 * ",raw" behind it (or the option below) shows such a device as its driver makes it, for those who
 * want to know what that is: `quiesce check` above all. Kernels and drivers promise less than
 * <quiesce/device.h> does, and without it the client makes up for what they lack. With it states,
 * results and data are the kernel's own in every state: accesses reach a stopped device, a drained
 * PRE_COPY session may read as ended, a refused load may be run, a session may be lost, triggers
 * are delivered at once, a log may be started twice. The device is reset neither when it is opened
 * nor when it is let go; who lets it go in RESUMING may crash the kernel (ORD-9).
 *
 * Of a vfio-user device: commands from the server (DMA over the socket) are answered from the
 * mappings that the user made, by whichever thread is waiting for a reply and else by a thread of
 * the client's own. Calls from several threads are pipelined on the one connection.
 *
 * Threads: both functions may be called from any, several at once; each blocks at most as long as
 * connect_timeout_ms says. The device they give follows <quiesce/device.h>.
 */
#ifndef QUIESCE_CLIENT_H
#define QUIESCE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qsc_client_options {
	bool raw; /* of a kernel device: as its driver makes it, see above */
	/* Of a vfio-user device, as is all that follows. For one request to be answered, in
	 * milliseconds; then the connection is given up and every call answers -ETIMEDOUT, later
	 * ones -ENOTCONN. 0: default, 60000. */
	uint32_t request_timeout_ms;
	uint32_t connect_timeout_ms; /* connect and handshake; 0: default, 30000 */
	bool posted_writes;  /* region writes do not wait for a reply; errors are not seen */
	bool no_fds;	     /* never pass memory by fd: all DMA goes over the socket */
	bool no_twin_socket; /* do not offer a second socket for the server's commands */
	bool poll;	     /* spin for replies instead of sleeping */
};

/*
 * options may be NULL. On failure err says what the URI, the machine or the peer lacks, and what to
 * do: -EINVAL for a URI that cannot be, as connect(2) when nobody serves there, -ENOENT for a
 * device that does not exist, -ENODEV for one that the kernel does not hand out, -EACCES and -EPERM
 * when it may not be used, -ETIMEDOUT when the handshake takes too long, -EBUSY when another user
 * has the device, -EPROTO and -EPROTONOSUPPORT for a peer that is no server of a version known
 * here, -ENOMEM.
 */
QSC_API int qsc_client_open(const char *uri, const struct qsc_client_options *options,
			    struct qsc_device **dev, struct qsc_error *err);

/* The same, with the same errors, over a connected stream socket, taken over also on failure. */
QSC_API int qsc_client_open_fd(int fd, const struct qsc_client_options *options,
			       struct qsc_device **dev, struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
