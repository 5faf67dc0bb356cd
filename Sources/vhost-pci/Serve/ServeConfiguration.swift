import AdminQueue
import PollEngine

/// What the daemon is to do: read from a file, or put together from options.
struct ServeConfiguration: Equatable {
    /// The control socket; none without.
    var control: String?
    /// Who may connect to sockets that the daemon makes: the bits of a file's mode.
    var socketMode: UInt16 = 0o600
    /// The group that these sockets are given to; the daemon's own without one.
    var socketGroup: UInt32?
    var logLevel = LogLevel.info
    var dataPlane = DataPlaneSettings()
    var devices: [DeviceSettings] = []
}

/// What moves the packets of `net` devices.
struct DataPlaneSettings: Equatable {
    var mode = ForwardingMode.switch
    /// CPUs of the polling threads; the last usable one when none is named.
    var cores: [Int] = []
    var idle = IdleStrategy.pause
    /// TAP interfaces of this host, as further ports of the switch.
    var uplinks: [String] = []
}

/// One device of the daemon.
struct DeviceSettings: Equatable {
    /// What kinds of devices there are.
    enum Kind: String, CaseIterable {
        case management
        case net
        case peerNet = "vhost-pci-net"
    }

    var name: String
    var kind: Kind
    /// Where the device itself is presented, to QEMU's vfio-user-pci for example.
    var vfioUser: String?
    /// Where a virtio-net front-end connects.
    var vhostUser: String?
    /// Where the peers of a management device's vhost-pci-net devices connect, in the order in which
    /// these are created.
    var peers: [String] = []
    var mac: MACAddress?
    var mtu: UInt16?
    var queuePairs = 1
    /// How many times the peer's memory the window has room for.
    var headroom = 1
    /// Most virtual devices of a management device.
    var maximumDevices = 4
    /// Vhost-pci-net devices that are built into a management device, the first of its virtual ones.
    var builtIn = 0
    /// Bytes of the window of each virtual device of a management device, a power of two.
    var window = 256 << 20
    var personality = Personality.multi

    /// All sockets that the device listens at.
    var paths: [String] { [vfioUser, vhostUser].compactMap { $0 } + peers }
}
