import GuestMemory
import HostSystem
import PCI
import PollEngine
import VFIO
import Virtio
import VirtioNet
import VirtioSpec
import Virtqueue

/// Two network devices that are wired to each other: frames are sent both ways at once, and each is
/// checked where it arrives. All on the calling thread.
final class DeviceTraffic {
    /// One of the two devices.
    private final class End {
        let name: String
        let driver: NetDriver
        let address: MACAddress
        let wakeup: EventFD?
        var port: DevicePort
        var watch = FunctionWatch()
        /// Times its interrupt arrived.
        var interrupts: UInt64 = 0
        var trouble: String?

        init(_ name: String, _ driver: NetDriver, fallback: UInt8) throws {
            guard let pair = driver.takePairs().first else {
                throw PCIError.notSupported("a network device without queue pairs")
            }
            self.name = name
            self.driver = driver
            address =
                driver.identity.macAddress.flatMap { MACAddress(bytes: $0) }
                ?? MACAddress(local: fallback)
            wakeup = pair.wakeup
            port = try DevicePort(pair)
        }
    }

    /// What is to be sent.
    struct Plan {
        /// Frames in each direction.
        var frames: UInt64 = 100_000
        /// Bytes of each, or a mix of sizes.
        var packetSize: Int?
        /// Sleep until an interrupt when there is nothing to do.
        var usesInterrupts = false
        /// Gives up when nothing has arrived for so long, in seconds.
        var timeout: Double = 10
    }

    /// Sizes used in turn unless one is asked for.
    static let mixedLengths = [60, 64, 65, 128, 256, 512, 1024, 1280, 1514]

    private static let frameRoom = 2048
    /// How often the devices' status is looked at, in nanoseconds.
    private static let lookInterval: UInt64 = 200_000_000
    private let plan: Plan
    private let loop: EventLoop
    private let report: (String) -> Void
    private var ends: [End] = []
    private var flows: [TrafficFlow] = []
    /// Frames made and not yet taken by the transmit ring, for each direction.
    private var pending: [(from: Int, count: Int)] = [(0, 0), (0, 0)]
    private let scratch: [Mapping]
    private let arrived: Mapping

    /// `report` gets a line for each step.
    init(_ plan: Plan, loop: EventLoop, report: @escaping (String) -> Void) throws {
        self.plan = plan
        self.loop = loop
        self.report = report
        scratch = try (0..<2).map { _ in
            try Mapping.anonymous(length: ChainBurst.capacity * Self.frameRoom)
        }
        arrived = try Mapping.anonymous(length: 1 << 17)
    }

    /// Brings both up, sends, resets both.
    func run(_ functions: [(name: String, function: any PCIFunction)]) throws -> TrafficReport {
        precondition(functions.count == 2, "there are two ends")
        defer {
            for end in ends {
                try? end.driver.stop()
                end.watch.stop()
            }
        }
        for (index, entry) in functions.enumerated() { try add(entry, UInt8(index + 1)) }
        if let reason = try waitForLinks() { return result(0, [reason]) }
        let longest = ends.compactMap(\.driver.identity.mtu).min().map { Int($0) + 14 } ?? 1514
        let lengths = (plan.packetSize.map { [$0] } ?? Self.mixedLengths).filter { $0 <= longest }
        guard !lengths.isEmpty else {
            return result(0, ["frames of \(plan.packetSize ?? 0) bytes exceed the MTU"])
        }
        flows = [(0, 1), (1, 0)].map { from, to in
            TrafficFlow(
                from: ends[from].address,
                to: ends[to].address,
                total: plan.frames,
                lengths: lengths
            )
        }
        let started = MonotonicClock.now
        var reasons = try exchange()
        let seconds = Double(MonotonicClock.now - started) / 1e9
        if reasons.isEmpty, let trouble = trouble() { reasons.append(trouble) }
        for end in ends {
            do { try end.driver.stop() } catch { reasons.append("\(end.name): \(error)") }
        }
        return result(seconds, reasons)
    }

    private func add(
        _ entry: (name: String, function: any PCIFunction),
        _ fallback: UInt8
    ) throws {
        let driver = NetDriver(
            transport: try PCITransport(function: entry.function),
            loop: loop,
            options: NetOptions(usesInterrupts: plan.usesInterrupts)
        )
        driver.onEvent = { [report] event in report("\(entry.name): \(event)") }
        try driver.start()
        do {
            let end = try End(entry.name, driver, fallback: fallback)
            ends.append(end)
            if let wakeup = end.wakeup {
                // Keeps the eventfd open for as long as it is watched.
                try loop.watch(wakeup.descriptor) { [weak end] in
                    end?.interrupts += wakeup.drain()
                }
            }
            driver.onEvent = { [report, weak end] event in
                report("\(entry.name): \(event)")
                switch event {
                case .needsReset, .gone: end?.trouble = "\(entry.name): \(event)"
                case .link, .problem: break
                }
            }
            if let host = entry.function as? any HostFunction {
                if let warning = host.warning { report("\(entry.name): \(warning)") }
            }
            end.watch = try FunctionWatch(entry.function, on: loop) { [weak end] lost in
                end?.trouble = "\(entry.name): \(lost)"
            }
        } catch {
            try? driver.stop()
            throw error
        }
        for line in DevicePorts.description(of: driver) { report("\(entry.name): \(line)") }
    }

    /// A reason when a link does not come up.
    private func waitForLinks() throws -> String? {
        let deadline = Deadline(milliseconds: UInt64(plan.timeout * 1000))
        while let end = ends.first(where: { !$0.driver.isLinkUp }) {
            guard !deadline.hasPassed else { return "\(end.name): the link is down" }
            try loop.turn(limitMilliseconds: 50)
            for end in ends { end.driver.check() }
            if let trouble = ends.compactMap(\.trouble).first { return trouble }
        }
        return nil
    }

    /// Sends and receives until all frames are there, or nothing moves any more.
    private func exchange() throws -> [String] {
        let started = MonotonicClock.now
        var nextLook = started + Self.lookInterval
        // How many have arrived each way, and when the last did.
        var progress = Array(repeating: (count: UInt64(0), at: started), count: 2)
        var turn = 0
        let patience = UInt64(plan.timeout * 1e9)
        var bursts = Bursts()
        while !flows.allSatisfy(\.isDone) {
            var moved = 0
            for way in 0..<2 {
                send(way, &bursts.outgoing)
                moved += receive(way, &bursts.incoming)
            }
            turn &+= 1
            if let reason = trouble() { return [reason] }
            let now = MonotonicClock.now
            if now >= nextLook {
                nextLook = now + Self.lookInterval
                for end in ends { end.driver.check() }
                if let reason = trouble() { return [reason] }
            }
            // Frames of others, and damaged ones, are no progress: they may go on for ever.
            for way in 0..<2 where !flows[way].isDone {
                if flows[way].received > progress[way].count {
                    progress[way] = (flows[way].received, now)
                } else if now - progress[way].at >= patience {
                    let seconds = FinalTable.decimal(plan.timeout, places: 1)
                    return ["\(ends[1 - way].name): nothing has arrived for \(seconds) s"]
                }
            }
            guard moved == 0 else {
                if turn % 64 == 0 { try loop.turn(limitMilliseconds: 0) }
                continue
            }
            try rest()
        }
        return []
    }

    /// Room for frames on their way out and in.
    private struct Bursts: ~Copyable {
        var outgoing = ChainBurst()
        var incoming = ChainBurst()
    }

    /// Serves doorbells and status; with interrupts, sleeps until one comes.
    private func rest() throws {
        guard plan.usesInterrupts else {
            try loop.turn(limitMilliseconds: 0)
            return
        }
        var mustPoll = false
        for end in ends where end.port.requestNotifications() { mustPoll = true }
        // A doorbell of ours, or an interrupt, ends the sleep.
        try loop.turn(limitMilliseconds: mustPoll ? 0 : 50)
        for end in ends { end.port.suppressNotifications() }
    }

    private func trouble() -> String? {
        for end in ends {
            if let error = end.port.error {
                return "\(end.name): \(error.rawValue): the device broke a ring"
            }
            if let trouble = end.trouble { return trouble }
        }
        return nil
    }

    /// Fills the transmit ring of one end as far as the window allows.
    private func send(_ way: Int, _ burst: inout ChainBurst) {
        if pending[way].from == pending[way].count {
            var count = 0
            while count < ChainBurst.capacity,
                let frame = flows[way].nextFrame(now: MonotonicClock.now)
            {
                _ = unsafe frame.write(into: place(way, count))
                count += 1
            }
            pending[way] = (0, count)
        }
        guard pending[way].from < pending[way].count else { return }
        burst.clear()
        for index in pending[way].from..<pending[way].count {
            let frame = unsafe place(way, index)
            guard let start = frame.baseAddress else { continue }
            let length = unsafe UInt32(TrafficFrame.length(of: UnsafeRawBufferPointer(frame)))
            unsafe burst.segments[burst.count] = Segment(pointer: start, length: length)
            unsafe burst.entries[burst.count] = BurstEntry(
                firstSegment: UInt32(burst.count),
                segmentCount: 1,
                byteCount: length,
                head: 0
            )
            burst.count += 1
            burst.segmentCount += 1
        }
        pending[way].from += ends[way].port.transmit(burst, from: 0, count: burst.count)
        ends[way].port.finishTransmit()
    }

    /// Checks what has arrived; returns the number of frames.
    private func receive(_ way: Int, _ burst: inout ChainBurst) -> Int {
        let end = ends[1 - way]
        burst.clear()
        _ = end.port.receive(into: &burst, limit: ChainBurst.capacity)
        for index in 0..<burst.count {
            let entry = unsafe burst.entries[index]
            let room = unsafe UnsafeMutableRawBufferPointer(
                start: arrived.address,
                count: arrived.length
            )
            var length = 0
            for piece in 0..<Int(entry.segmentCount) {
                let segment = unsafe burst.segments[Int(entry.firstSegment) + piece]
                let bytes = unsafe UnsafeRawBufferPointer(
                    start: segment.pointer,
                    count: min(Int(segment.length), room.count - length)
                )
                unsafe UnsafeMutableRawBufferPointer(rebasing: room[length...]).copyMemory(
                    from: bytes
                )
                length += bytes.count
            }
            unsafe flows[way].accept(
                UnsafeRawBufferPointer(UnsafeMutableRawBufferPointer(rebasing: room[..<length]))
            )
        }
        if burst.count > 0 { end.port.finishReceive() }
        return burst.count
    }

    /// Where frame `index` of a direction's burst is made.
    private func place(_ way: Int, _ index: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: scratch[way].address + index * Self.frameRoom,
            count: Self.frameRoom
        )
    }

    private func result(_ seconds: Double, _ reasons: [String]) -> TrafficReport {
        var reasons = reasons
        let directions = flows.enumerated().map { way, flow in
            TrafficReport.Direction(
                flow,
                from: ends[way].name,
                to: ends[1 - way].name,
                interrupts: ends[1 - way].interrupts
            )
        }
        for (direction, flow) in zip(directions, flows) {
            if !flow.isGood { reasons.append("\(direction.name): \(direction.findings)") }
            if plan.usesInterrupts, direction.interrupts == 0 {
                reasons.append("\(direction.name): not one interrupt arrived")
            }
        }
        for end in ends {
            for (id, count) in end.port.counters.drops.sorted(by: { $0.key < $1.key }) {
                reasons.append("\(end.name): \(count) frames dropped, \(id)")
            }
        }
        return TrafficReport(seconds: seconds, directions: directions, reasons: reasons)
    }
}
