# SPDX-License-Identifier: Apache-2.0
"""Runs a pod through grpcio as it comes, on gRPC's C core: a container, an exec, the events of both.

grpcio names the socket's path as `:authority` of every call, which the daemon has to take. The messages are compiled from
the project's own .proto files. An assertion that fails, or a call, ends with a traceback and status 1.
"""

import argparse
import importlib
import sys
import threading

import grpc
from grpc_tools import protoc

TIMEOUT = 60


def compile_protos(roots, out):
    for root, name in roots:
        code = protoc.main(["protoc", f"-I{root}", f"--python_out={out}", f"--grpc_python_out={out}", name])
        assert code == 0, f"protoc {name}: {code}"
    sys.path.insert(0, out)


class Events(threading.Thread):
    """Collects events until the one that is waited for."""

    def __init__(self, stub, request, last):
        super().__init__(daemon=True)
        self.stream = stub.GetContainerEvents(request)
        self.last = last
        self.seen = []

    def run(self):
        try:
            for event in self.stream:
                self.seen.append(event)
                if self.last(event):
                    return
        except grpc.RpcError as error:
            self.seen.append(error)


def main():
    parser = argparse.ArgumentParser()
    for name in ["socket", "cri-proto", "admin-proto", "out", "image", "handler", "cgroup-parent", "logs"]:
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    compile_protos([(args.cri_proto, "runtime/v1/api.proto"), (args.admin_proto, "hull/v1/admin.proto")], args.out)
    api = importlib.import_module("runtime.v1.api_pb2")
    stubs = importlib.import_module("runtime.v1.api_pb2_grpc")
    admin = importlib.import_module("hull.v1.admin_pb2")
    admin_stubs = importlib.import_module("hull.v1.admin_pb2_grpc")

    channel = grpc.insecure_channel(f"unix://{args.socket}")
    runtime, images = stubs.RuntimeServiceStub(channel), stubs.ImageServiceStub(channel)
    assert runtime.Version(api.VersionRequest(), timeout=TIMEOUT).runtime_name == "hull"
    assert admin_stubs.AdminStub(channel).ListOperations(admin.ListOperationsRequest(), timeout=TIMEOUT) is not None
    image = images.ImageStatus(api.ImageStatusRequest(image=api.ImageSpec(image=args.image)), timeout=TIMEOUT).image
    assert image.id, "the image is there"

    pods = []
    deleted = api.CONTAINER_DELETED_EVENT
    events = Events(
        runtime,
        api.GetEventsRequest(),
        lambda event: event.container_event_type == deleted and event.container_id in pods,
    )
    events.start()
    pod = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name="grpcio", uid=f"grpcio-{args.handler}", namespace="default"),
        log_directory=args.logs,
        linux=api.LinuxPodSandboxConfig(
            cgroup_parent=args.cgroup_parent,
            security_context=api.LinuxSandboxSecurityContext(
                namespace_options=api.NamespaceOption(pid=api.CONTAINER)
            ),
        ),
    )
    run = api.RunPodSandboxRequest(config=pod, runtime_handler=args.handler)
    pod_id = runtime.RunPodSandbox(run, timeout=TIMEOUT).pod_sandbox_id
    pods.append(pod_id)
    config = api.ContainerConfig(
        metadata=api.ContainerMetadata(name="main"),
        image=api.ImageSpec(image=args.image),
        command=["sh", "-c", "trap 'exit 3' TERM; sleep 1000 & wait"],
        log_path="main.log",
        linux=api.LinuxContainerConfig(resources=api.LinuxContainerResources(oom_score_adj=1000)),
    )
    create = api.CreateContainerRequest(pod_sandbox_id=pod_id, config=config, sandbox_config=pod)
    container_id = runtime.CreateContainer(create, timeout=TIMEOUT).container_id
    runtime.StartContainer(api.StartContainerRequest(container_id=container_id), timeout=TIMEOUT)
    command = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    done = runtime.ExecSync(api.ExecSyncRequest(container_id=container_id, cmd=command, timeout=30), timeout=TIMEOUT)
    assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 7), done
    # More than one frame of HTTP/2 each way.
    large = "x" * 100_000
    done = runtime.ExecSync(
        api.ExecSyncRequest(container_id=container_id, cmd=["echo", large], timeout=30), timeout=TIMEOUT
    )
    assert done.stdout.decode() == large + "\n", len(done.stdout)
    runtime.StopContainer(api.StopContainerRequest(container_id=container_id, timeout=10), timeout=TIMEOUT)
    status = runtime.ContainerStatus(api.ContainerStatusRequest(container_id=container_id), timeout=TIMEOUT).status
    assert (status.state, status.exit_code) == (api.CONTAINER_EXITED, 3), status
    runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container_id), timeout=TIMEOUT)
    runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod_id), timeout=TIMEOUT)
    runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod_id), timeout=TIMEOUT)

    events.join(TIMEOUT)
    own = [event.container_event_type for event in events.seen if event.container_id == container_id]
    wanted = [
        api.CONTAINER_CREATED_EVENT,
        api.CONTAINER_STARTED_EVENT,
        api.CONTAINER_STOPPED_EVENT,
        api.CONTAINER_DELETED_EVENT,
    ]
    assert own == wanted, events.seen
    assert all(event.pod_sandbox_status.id == pod_id for event in events.seen), events.seen
    try:
        runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod_id), timeout=TIMEOUT)
        raise AssertionError("the pod is gone")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    print("ok")


if __name__ == "__main__":
    main()
