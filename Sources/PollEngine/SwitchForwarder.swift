internal import GuestMemory
internal import HostSystem
internal import Virtqueue

/// Forwards by learned addresses between all ports, each packet in one copy from the segments it
/// lies in to the buffers of its destination.
///
/// A burst of one source is classified first, then handed over in runs of one destination; every
/// destination publishes once, after the last run. Order is kept between any two ports. What finds
/// no buffer is dropped for that destination alone (HI-I9): nothing here waits for a port.
@safe
struct SwitchForwarder: ~Copyable, Forwarder {
    // Safety: `targets` has an entry for every packet of a burst, `touched` one for every slot.
    private typealias Port = UnsafeMutablePointer<PortState>

    private var burst = ChainBurst()
    private var table: MACTable
    /// Destination of each packet of the burst; nil for all other ports.
    private let targets: UnsafeMutablePointer<Port?>
    /// Ports with packets that are not published yet.
    private let touched: UnsafeMutablePointer<Port>
    private var touchedCount = 0
    private var tick: UInt32 = 0
    private var turns = 0

    /// One tick is 2^28 cycles, a tenth of a second.
    private static var tickShift: UInt64 { @_noLocks get { 28 } }

    init(_ plan: WorkerPlan) {
        let age = plan.maximumAgeSeconds * CycleClock.hertz >> SwitchForwarder.tickShift
        table = MACTable(
            capacity: 8192,
            portLimit: WorkerControl.capacity,
            quota: 2048,
            maximumAge: UInt32(clamping: age),
            key: plan.tableKey
        )
        unsafe targets = .allocate(capacity: ChainBurst.capacity)
        unsafe targets.initialize(repeating: nil, count: ChainBurst.capacity)
        unsafe touched = .allocate(capacity: WorkerControl.capacity)
        tick = SwitchForwarder.currentTick
    }

    deinit {
        unsafe targets.deallocate()
        unsafe touched.deallocate()
    }

    private static var currentTick: UInt32 {
        @_noLocks get { UInt32(truncatingIfNeeded: CycleClock.now >> tickShift) }
    }

    /// Frames for stations behind a removed port must not go to the one that has its place.
    mutating func forget(slot: Int) {
        table.forget(port: slot, now: tick)
    }

    @_noLocks
    static func poll(
        _ forwarder: inout SwitchForwarder,
        _ ports: PortList,
        _ control: WorkerControl,
        _ tally: inout WorkerTally,
        _ watch: PollWatch
    ) -> PollExit {
        var loop = PollLoop(watch)
        while true {
            if let exit = loop.exit(control) { return exit }
            let moved = unsafe forwarder.turn(ports)
            unsafe loop.book(moved, ports, control, &tally)
        }
    }

    @_noLocks @inline(__always)
    mutating func turn(_ ports: PortList) -> Int {
        turns &+= 1
        if turns & 63 == 0 { tick = SwitchForwarder.currentTick }
        var moved = 0
        var index = 0
        while index < (unsafe ports.count) {
            let source = unsafe ports.ports[index]
            var lane = 0
            while lane < (unsafe source.pointee.laneCount) {
                let taken = unsafe source.pointee.take(lane, into: &burst)
                if taken > 0 {
                    unsafe classify(source, ports)
                    unsafe distribute(source, lane, ports)
                    unsafe source.pointee.finish(lane, burst)
                    moved &+= taken
                }
                lane &+= 1
            }
            index &+= 1
        }
        return moved
    }

    /// Learns where packets come from and finds out where they go. Those that go nowhere are marked
    /// dropped and counted at their source.
    @_noLocks @inline(__always)
    private mutating func classify(_ source: Port, _ ports: PortList) {
        let slot = unsafe source.pointee.slot
        var lastSource: UInt64 = 0
        var lastDestination: UInt64 = 0
        var lastTarget: Port?
        var index = 0
        while index < burst.count {
            let entry = unsafe burst.entries[index]
            defer { index &+= 1 }
            unsafe targets[index] = nil
            guard entry.isDropped == 0 else { continue }
            guard let header = EthernetHeader(burst, entry) else {
                unsafe drop(index, &source.pointee.record.pointee.engine.short)
                continue
            }
            if header.source != lastSource {
                lastSource = header.source
                if case .full = table.learn(header.source, port: slot, now: tick) {
                    unsafe source.pointee.record.pointee.engine.unlearned &+= 1
                }
            }
            guard !header.isGroup else { continue }
            if header.destination != lastDestination {
                lastDestination = header.destination
                let found = table.lookup(header.destination, now: tick)
                unsafe lastTarget = found < 0 ? nil : ports.bySlot[found]
            }
            if unsafe lastTarget == source {
                unsafe drop(index, &source.pointee.record.pointee.engine.samePort)
            } else {
                unsafe targets[index] = lastTarget
            }
        }
    }

    @_noLocks @inline(__always)
    private func drop(_ index: Int, _ counter: inout UInt64) {
        unsafe burst.entries[index].isDropped = 1
        counter &+= 1
    }

    /// Hands the burst over in runs of packets with one destination, then publishes at each.
    @_noLocks @inline(__always)
    private mutating func distribute(_ source: Port, _ lane: Int, _ ports: PortList) {
        var start = 0
        while start < burst.count {
            guard unsafe burst.entries[start].isDropped == 0 else {
                start &+= 1
                continue
            }
            let target = unsafe targets[start]
            var end = start &+ 1
            while end < burst.count, unsafe burst.entries[end].isDropped == 0,
                unsafe targets[end] == target
            {
                end &+= 1
            }
            if let target = unsafe target {
                unsafe deliver(start, end &- start, target, lane)
            } else {
                unsafe flood(start, end &- start, source, lane, ports)
            }
            start = end
        }
        while touchedCount > 0 {
            touchedCount &-= 1
            unsafe touched[touchedCount].pointee.flush()
        }
    }

    @_noLocks @inline(__always)
    private mutating func deliver(_ start: Int, _ count: Int, _ target: Port, _ lane: Int) {
        // A port is noted when it gets something for the first time since its last flush.
        if unsafe target.pointee.unpublished == 0 {
            unsafe touched[touchedCount] = target
            touchedCount &+= 1
        }
        unsafe target.pointee.deliver(burst, from: start, count: count, lane: lane)
        if unsafe target.pointee.unpublished == 0 { touchedCount &-= 1 }
    }

    /// One copy for every port but the one it came from.
    @_noLocks
    private mutating func flood(
        _ start: Int,
        _ count: Int,
        _ source: Port,
        _ lane: Int,
        _ ports: PortList
    ) {
        let packets = UInt64(truncatingIfNeeded: count)
        let others = unsafe ports.count &- 1
        guard others > 0 else {
            unsafe source.pointee.record.pointee.engine.noPort &+= packets
            return
        }
        var index = 0
        while index < (unsafe ports.count) {
            let target = unsafe ports.ports[index]
            if unsafe target != source { unsafe deliver(start, count, target, lane) }
            index &+= 1
        }
        let copies = packets &* UInt64(truncatingIfNeeded: others &- 1)
        unsafe source.pointee.record.pointee.engine.floodCopies &+= copies
    }
}
