internal import CSystemShims
internal import Glibc
internal import HostSystem
internal import Synchronization

/// The control thread's handle of one worker.
final class Worker {
    let core: Int
    /// NUMA node of the core.
    let node: Int
    let control: WorkerControl
    /// Ports attached to it.
    var portCount = 0

    private let thread: PollingThread

    /// Starts the thread and waits until it polls on its CPU.
    init(
        _ plan: WorkerPlan,
        mode: ForwardingMode,
        startMilliseconds: UInt64
    ) throws(EngineError) {
        core = plan.core
        do throws(SystemError) {
            node = try Topology.node(ofCPU: plan.core)
            let control = try WorkerControl()
            self.control = control
            thread = try PollingThread(name: "poll-\(plan.core)") {
                WorkerThread.run(control, plan, mode)
            }
        } catch {
            throw .system(error)
        }
        guard wait(milliseconds: startMilliseconds, until: { phase != .starting }) else {
            if !stop(milliseconds: 0) { _ = unsafe Unmanaged.passRetained(thread) }
            throw .startTimeout(core: plan.core, milliseconds: startMilliseconds)
        }
        if phase == .failed {
            let errno = Errno(control.startError.load(ordering: .relaxed))
            throw .system(SystemError("pin a thread to CPU \(plan.core)", errno))
        }
    }

    /// Makes a port the worker's, from its next turn on; returns the number of the command.
    func attach(_ attachment: PortAttachment, at slot: Int) throws(SystemError) -> UInt64 {
        if let file = attachment.tapFile { try control.watch(file, hasCount: false) }
        for (index, wakeup) in attachment.wakeups.enumerated() {
            do throws(SystemError) {
                try control.watch(wakeup.descriptor, hasCount: true)
            } catch {
                // What is watched must not outlive the attachment: its number may be given anew.
                for watched in attachment.wakeups[..<index] { control.unwatch(watched.descriptor) }
                throw error
            }
        }
        portCount += 1
        return unsafe control.publish(attachment.state, at: slot)
    }

    /// Takes a port away; returns the number of the command to wait for.
    func detach(_ attachment: PortAttachment, at slot: Int) -> UInt64 {
        if let file = attachment.tapFile { control.unwatch(file) }
        for wakeup in attachment.wakeups { control.unwatch(wakeup.descriptor) }
        portCount -= 1
        return unsafe control.publish(nil, at: slot)
    }

    /// True once the worker follows the command, or has ended; false at the limit.
    func follows(_ command: UInt64, milliseconds: UInt64) -> Bool {
        wait(milliseconds: milliseconds) {
            control.acknowledged.load(ordering: .acquiring) >= command || phase == .ended
        }
    }

    /// Ends the thread and waits for it; false when it has not ended at the limit. Whoever then
    /// lets go of this object waits without one.
    func stop(milliseconds: UInt64) -> Bool {
        control.isStopping.store(true, ordering: .releasing)
        _ = control.raiseCommand()
        guard wait(milliseconds: milliseconds, until: { phase == .ended || phase == .failed })
        else { return false }
        thread.join()
        return true
    }

    /// About ten microseconds.
    private static let spinCycles = CycleClock.hertz / 100_000

    private var phase: WorkerControl.Phase {
        WorkerControl.Phase(rawValue: control.phase.load(ordering: .acquiring)) ?? .ended
    }

    /// Looks again and again, sleeping in between: a spinning worker may share the caller's CPU. On
    /// another one it answers with its next turn, which is over before a sleep has begun.
    private func wait(milliseconds: UInt64, until condition: () -> Bool) -> Bool {
        let begin = CycleClock.now
        while milliseconds > 0, CycleClock.now &- begin < Self.spinCycles {
            if condition() { return true }
            shim_pause()
        }
        let deadline = Deadline(milliseconds: milliseconds)
        while !condition() {
            if deadline.hasPassed { return condition() }
            usleep(20)
        }
        return true
    }
}
