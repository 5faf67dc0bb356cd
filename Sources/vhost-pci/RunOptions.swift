public import ArgumentParser
import HostSystem
import PollEngine

extension IdleStrategy: ExpressibleByArgument {}

extension ForwardingMode: ExpressibleByArgument {}

/// A way out of the switch that is no peer.
struct Uplink: ExpressibleByArgument {
    /// Name of a TAP interface of this host.
    let interface: String

    init?(argument: String) {
        let parts = argument.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0] == "tap", !parts[1].isEmpty, parts[1].utf8.count < 16
        else { return nil }
        interface = String(parts[1])
    }
}

/// A list of CPU numbers: "0", "0,2" or "0-3".
struct CoreList: ExpressibleByArgument {
    let cores: [Int]

    init?(argument: String) {
        var cores: [Int] = []
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            switch ends.count {
            case 1:
                guard let core = ends[0], core >= 0 else { return nil }
                cores.append(core)
            case 2:
                guard let first = ends[0], let last = ends[1], first >= 0, first <= last,
                    last - first < 1024
                else { return nil }
                cores += first...last
            default:
                return nil
            }
        }
        guard !cores.isEmpty, Set(cores).count == cores.count else { return nil }
        self.cores = cores
    }
}

/// What an option that names a socket may say.
enum SocketPath {
    /// Bytes of the longest path: a socket's address has 108, the last one 0.
    static let longest = 107
}

/// The options of `vhost-pci run`.
struct RunOptions: ParsableArguments {
    @Option(
        name: .customLong("device"),
        help: """
            A device as a port, by PCI address such as 0000:03:00.0 or by `vfio-user:PATH`, the \
            socket of its server: a virtio-net device, or the \
            machine behind a vhost-pci-net device. May be given several times. `emulated`, the \
            default, is the management device that serves peers.
            """
    )
    var devices: [String] = []

    @OptionGroup var opening: OpenOptions

    @Option(
        name: .customLong("peer"),
        help: "Listen here for a vhost-user front-end (QEMU, DPDK). May be given several times."
    )
    var peers: [String] = []

    @Option(help: "What to do with packets: sink, source, echo or switch. Default: switch.")
    var mode: ForwardingMode?

    @Option(
        name: .customLong("uplink"),
        help: "A further port of the switch, as tap:NAME. May be given several times."
    )
    var uplinks: [Uplink] = []

    // `.unconditional`: a negative number is judged as one, instead of being taken for an option.
    @Option(
        parsing: .unconditional,
        help: "CPUs for the workers, such as 1 or 0,2 or 0-3. Default: the last usable one."
    )
    var cores: CoreList?

    @Option(
        parsing: .unconditional,
        help: "Seconds to run. Default: until interrupted; 5 when neither peer nor device is given."
    )
    var duration: Double?

    @Option(
        parsing: .unconditional,
        help: "Bytes of the frames that `--mode source` makes, 60 to 1518."
    )
    var packetSize = 64

    @Option(help: "What a worker does when there is nothing to do: spin, pause or sleep.")
    var idle = IdleStrategy.pause

    @Flag(help: "Print the report as JSON on standard output, the steps on standard error.")
    var json = false

    func validate() throws {
        if let duration, !(duration > 0 && duration <= 31_536_000) {
            throw ValidationError("--duration takes seconds, more than 0 and at most a year")
        }
        guard (60...1518).contains(packetSize) else {
            throw ValidationError("--packet-size takes 60 to 1518 bytes, not \(packetSize)")
        }
        guard Set(peers).count == peers.count else {
            throw ValidationError("two --peer options name the same socket")
        }
        for path in peers where !(1...SocketPath.longest).contains(path.utf8.count) {
            throw ValidationError(
                "socket/path: --peer takes a path of 1 to \(SocketPath.longest) bytes, not \"\(path)\""
            )
        }
        let devices = try validateDevices()
        try validateUplinks()
        if chosenMode == .switch, let count = cores?.cores.count, count > 1 {
            throw ValidationError("not supported: --mode switch on \(count) cores; name one")
        }
        if !uplinks.isEmpty, let mode, mode != .switch {
            throw ValidationError(
                "--uplink needs --mode switch; \(mode.rawValue) has no second port"
            )
        }
        if peers.isEmpty, devices == 0, let mode, mode != .switch {
            throw ValidationError(
                "--mode \(mode.rawValue) needs --peer PATH or --device ADDRESS; without them the two"
                    + " own peers are switched"
            )
        }
        if peers.isEmpty, devices == 0, !uplinks.isEmpty {
            throw ValidationError(
                "--uplink needs --peer PATH or --device ADDRESS: the own peers talk to each other only"
            )
        }
        if chosenMode == .switch, devices == 1, peers.isEmpty, uplinks.isEmpty {
            throw ValidationError(
                "--mode switch needs a second port: another --device, a --peer or an --uplink"
            )
        }
        for core in cores?.cores ?? [] where !Topology.mayUse(cpu: core) {
            let usable = Topology.usableCPUs.map(String.init).joined(separator: ", ")
            throw ValidationError(
                "--cores: this process may not run on CPU \(core), only on \(usable)"
            )
        }
    }

    /// The PCI functions to drive.
    var pciTargets: [DeviceTarget] {
        get throws { try devices.map(DeviceTarget.parse).filter { $0 != .emulated } }
    }

    /// Refuses targets that are none; returns the number of PCI functions.
    private func validateDevices() throws -> Int {
        let targets = try devices.map(DeviceTarget.parse)
        guard Set(targets).count == targets.count else {
            throw ValidationError("two --device options name the same device")
        }
        let count = try pciTargets.count
        if count > 0, peers.isEmpty, targets.contains(.emulated) {
            throw ValidationError(
                "--device emulated serves peers: beside another device it needs --peer PATH"
            )
        }
        return count
    }

    private func validateUplinks() throws {
        let names = uplinks.map(\.interface)
        guard Set(names).count == names.count else {
            throw ValidationError("two --uplink options name the same interface")
        }
        let taken = Set(peers.indices.map { "peer\($0)" })
        if let name = names.first(where: taken.contains) {
            throw ValidationError(
                "--uplink tap:\(name): the reports call a peer so; give the interface another name"
            )
        }
    }

    /// The mode, or what fits the other options: peers without a mode are switched.
    var chosenMode: ForwardingMode { mode ?? .switch }

    /// The CPUs, or the last usable one: the first carries most of a host's interrupts.
    var chosenCores: [Int] { cores?.cores ?? [Topology.usableCPUs.last ?? 0] }
}
